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
        let mut n_bytes = 0;
        for name in &row.names {
            n_bytes += gzip_bytes(&workspace.dist().join(name))?;
        }
        eprintln!(
            "{n_bytes:>8} of {:>8} {}",
            row.budget,
            row.names.join(" + ")
        );
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

/// A file of the table, or several that are downloaded together.
#[derive(PartialEq, Eq, Debug)]
struct Row<'a> {
    names: Vec<&'a str>,
    /// Bytes that it is said to have.
    n_bytes: usize,
    /// Bytes that it may have.
    budget: usize,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, names, n_bytes, budget, _] = cells[..] else {
            return None;
        };
        let name = |cell: &'a str| cell.strip_prefix('`')?.strip_suffix('`');
        Some(Self {
            names: names.split(" + ").map(name).collect::<Option<_>>()?,
            n_bytes: n_bytes.parse().ok()?,
            budget: budget.parse().ok()?,
        })
    }

    fn fault(&self, n_bytes: usize) -> Option<String> {
        let name = self.names.join(" + ");
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
            names: vec!["index.js", "worker.js"],
            n_bytes: 1000,
            budget: 1100,
        };
        assert_eq!(
            Row::parse("| `worker.js` | 1000 | 1100 |").map(|row| row.names),
            Some(vec!["worker.js"])
        );
        assert_eq!(
            Row::parse("| `index.js` + `worker.js` | 1000 | 1100 |").as_ref(),
            Some(&row)
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
