//! The budget for the wasm module's size over the wire.

use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use crate::build;
use crate::shell::step;
use crate::workspace::Workspace;

/// `wasm-size-budget.json` at the root.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    max_gzip_bytes: usize,
}

/// Compares the shipped module with the committed budget. It must have been built with [`build::Profile::Full`].
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let budget_path = workspace.root.join("wasm-size-budget.json");
    let text = fs::read_to_string(&budget_path)
        .with_context(|| format!("cannot read {}", budget_path.display()))?;
    let budget: Budget =
        serde_json::from_str(&text).with_context(|| format!("in {}", budget_path.display()))?;

    let path = build::bound_module(workspace);
    let module = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&module)?;
    let gzip_bytes = encoder.finish()?.len();

    let max = budget.max_gzip_bytes;
    step(&format!(
        "wasm module: {} bytes, {gzip_bytes} with gzip, budget {max}",
        module.len()
    ));
    ensure!(
        gzip_bytes <= max,
        "the wasm module is {} bytes over its budget in {}",
        gzip_bytes - max,
        budget_path.display()
    );
    Ok(())
}
