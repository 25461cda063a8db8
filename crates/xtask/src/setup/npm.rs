//! The npm packages that build the package and drive the browsers.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::fingerprint::Fingerprint;
use crate::shell::{run, step};
use crate::workspace::Workspace;

/// Installs what the lock file names, unless that has been done.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let stamp = workspace.root.join("node_modules/.cinderlm-stamp");
    let mut fingerprint = Fingerprint::default()
        .with_path(&workspace.root.join("package.json"))?
        .with_path(&workspace.root.join("package-lock.json"))?;
    for folder in workspace.npm_folders() {
        fingerprint = fingerprint.with_path(&folder.join("package.json"))?;
    }
    if fingerprint.matches(&stamp) {
        return Ok(());
    }
    step("npm ci: the TypeScript compiler, the bundler, wasm-opt and the browser drivers");
    run(npm(&workspace.root).arg("ci"))?;
    fingerprint.write(&stamp)
}

/// An npm command, quiet about funding and audits.
pub(crate) fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command
        .current_dir(folder)
        .args(["--no-fund", "--no-audit", "--no-update-notifier"]);
    command
}
