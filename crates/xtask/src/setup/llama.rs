//! llama-cpp-python's server, which the compatibility tests compare with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::fingerprint::Fingerprint;
use crate::setup::debian;
use crate::shell::{find_program, run, step, succeeds};
use crate::workspace::Workspace;

/// The Python that has it, in an environment of its own; compiles it unless that has been done.
pub(crate) fn provide(workspace: &Workspace) -> Result<PathBuf> {
    let requirements = workspace.compat().join("requirements.txt");
    let venv = workspace.target.join("compat").join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join(".cinderlm-stamp");
    let fingerprint = Fingerprint::default().with_path(&requirements)?;
    if fingerprint.matches(&stamp) && python.is_file() {
        return Ok(python);
    }
    if debian::is_debian() {
        if find_program(&["g++", "c++", "clang++"]).is_none() {
            debian::install(&["g++"], "llama-cpp-python is compiled")?;
        }
        if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
            debian::install(&["python3-venv"], "llama-cpp-python is kept apart")?;
        }
    }
    step("compiling llama-cpp-python's server (ten minutes, once)");
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check", "-r"])
        .arg(&requirements))
    .context("llama-cpp-python needs a C++ compiler; CMake and Ninja come with it")?;
    fingerprint.write(&stamp)?;
    Ok(python)
}
