//! Everything that is checked by reading the code instead of running it, and the size of what ships.

use std::process::Command;

use anyhow::Result;

use crate::build::Module;
use crate::setup::npm;
use crate::setup::toolchain::{Component, WasmToolchain};
use crate::shell::{cargo, run as run_command, step};
use crate::workspace::Workspace;
use crate::{arrows, build, size};

/// Runs every check.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    formatting(workspace)?;
    arrows::check(workspace)?;
    Component::Clippy.provide()?;
    step("clippy, native");
    let native = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    run_command(cargo().current_dir(&workspace.root).args(native))?;
    clippy_wasm(workspace)?;
    build::package(workspace, build::Profile::Full)?;
    size::check(workspace)?;
    types(workspace)?;
    build::reference(workspace).map(drop)
}

/// `cargo fmt --check`.
pub(crate) fn formatting(workspace: &Workspace) -> Result<()> {
    Component::Rustfmt.provide()?;
    step("formatting");
    run_command(
        cargo()
            .current_dir(&workspace.root)
            .args(["fmt", "--all", "--check"]),
    )
}

/// clippy as browsers see the code, with each kind of device on its own, under a second configuration that bans what would block the worker's only thread.
/// The idea is rerun's (`scripts/clippy_wasm`).
fn clippy_wasm(workspace: &Workspace) -> Result<()> {
    let configuration = workspace.root.join("crates/wasm");
    for module in [Module::Webgpu, Module::CpuThreads] {
        step(&format!("clippy, {}: nothing may block", module.name()));
        let toolchain = WasmToolchain::provide(module.threads())?;
        let mut command = toolchain.clippy(workspace, &configuration, module.threads())?;
        command.args(module.features());
        run_command(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

fn types(workspace: &Workspace) -> Result<()> {
    npm::install(workspace)?;
    let tsc = workspace.root.join("node_modules/.bin/tsc");
    for folder in workspace.npm_folders() {
        step(&format!("tsc: types in {}", folder.display()));
        run_command(Command::new(&tsc).current_dir(folder).arg("--noEmit"))?;
    }
    Ok(())
}
