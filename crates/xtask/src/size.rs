//! The budgets for what the package weighs over the wire.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::shell::step;
use crate::workspace::Workspace;

/// Compares the files of the built package with the committed table, `docs/size.md`. The package must have been built with
/// [`build::Profile::Full`](crate::build::Profile::Full).
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join("docs/size.md");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows: Vec<Row> = text.lines().filter_map(Row::parse).collect();
    ensure!(!rows.is_empty(), "no table in {}", path.display());
    step("sizes with gzip, and the most that is allowed");
    let mut faults = Vec::new();
    for row in &rows {
        let n_bytes = gzip_bytes(&workspace.dist().join(row.name))?;
        eprintln!("{:>16} {n_bytes:>8} of {}", row.name, row.budget);
        faults.extend(row.fault(n_bytes));
    }
    ensure!(
        faults.is_empty(),
        "{}: {}",
        path.display(),
        faults.join("; ")
    );
    Ok(())
}

/// A file of the table.
#[derive(PartialEq, Eq, Debug)]
struct Row<'a> {
    name: &'a str,
    /// Bytes that it is said to have.
    n_bytes: usize,
    /// Bytes that it may have.
    budget: usize,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, n_bytes, budget, _] = cells[..] else {
            return None;
        };
        Some(Self {
            name: name.strip_prefix('`')?.strip_suffix('`')?,
            n_bytes: n_bytes.parse().ok()?,
            budget: budget.parse().ok()?,
        })
    }

    fn fault(&self, n_bytes: usize) -> Option<String> {
        let name = self.name;
        if n_bytes > self.budget {
            return Some(format!("{name} is over its budget"));
        }
        let is_told = n_bytes.abs_diff(self.n_bytes) <= self.n_bytes / 20;
        (!is_told).then(|| format!("{name} has {n_bytes} bytes: update the table"))
    }
}

fn gzip_bytes(path: &Path) -> Result<usize> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    Ok(encoder.finish()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_held_to() {
        let row = Row {
            name: "worker.js",
            n_bytes: 1000,
            budget: 1100,
        };
        assert_eq!(
            Row::parse("| `worker.js` | 1000 | 1100 |"),
            Some(Row { ..row })
        );
        assert_eq!(Row::parse("| file | bytes | budget |"), None);
        assert_eq!(Row::parse("| --- | ---: | ---: |"), None);
        let check = |n_bytes, expect: Option<&str>| {
            let fault = row.fault(n_bytes);
            assert_eq!(fault.is_some(), expect.is_some(), "{n_bytes}: {fault:?}");
            assert!(
                fault
                    .unwrap_or_default()
                    .contains(expect.unwrap_or_default())
            );
        };
        check(1000, None);
        check(1050, None);
        check(1051, Some("update the table"));
        check(949, Some("update the table"));
        check(1101, Some("over its budget"));
    }
}
