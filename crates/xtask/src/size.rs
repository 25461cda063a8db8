//! The budgets for what the package weighs over the wire.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::shell::step;
use crate::workspace::Workspace;

/// Compares the files of the built package with the committed budgets, `size-budget.json` at the root: the most bytes that each file may
/// have with gzip. The package must have been built with [`build::Profile::Full`](crate::build::Profile::Full).
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let budget_path = workspace.root.join("size-budget.json");
    let text = fs::read_to_string(&budget_path)
        .with_context(|| format!("cannot read {}", budget_path.display()))?;
    let budgets: BTreeMap<String, usize> =
        serde_json::from_str(&text).with_context(|| format!("in {}", budget_path.display()))?;
    step("sizes with gzip, and the most that is allowed");
    let mut over = Vec::new();
    for (name, most) in &budgets {
        let n_bytes = gzip_bytes(&workspace.dist().join(name))?;
        eprintln!("{name:>16} {n_bytes:>8} of {most}");
        over.extend((n_bytes > *most).then_some(name.as_str()));
    }
    ensure!(
        over.is_empty(),
        "over the budget in {}: {}",
        budget_path.display(),
        over.join(", ")
    );
    Ok(())
}

fn gzip_bytes(path: &Path) -> Result<usize> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    Ok(encoder.finish()?.len())
}
