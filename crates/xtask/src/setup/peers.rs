//! What `bench` measures cinderlm beside: npm packages, and the model in the format that one of them reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::fingerprint::Fingerprint;
use crate::setup::debian;
use crate::setup::npm::npm;
use crate::shell::{run, step, succeeds};
use crate::workspace::Workspace;

/// The folder with the packages, below the target folder: they are no part of the project's own; installs them unless that has been done.
pub(crate) fn packages(workspace: &Workspace) -> Result<PathBuf> {
    let source = workspace.bench().join("peers");
    let folder = workspace.target.join("bench/peers");
    let stamp = folder.join("node_modules/.cinderlm-stamp");
    let files = ["package.json", "package-lock.json"];
    let mut fingerprint = Fingerprint::default();
    for name in files {
        fingerprint = fingerprint.with_path(&source.join(name))?;
    }
    if fingerprint.matches(&stamp) {
        return Ok(folder);
    }
    step("npm ci: the libraries that cinderlm is measured beside");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for name in files {
        fs::copy(source.join(name), folder.join(name))
            .with_context(|| format!("cannot copy {name} to {}", folder.display()))?;
    }
    // Their scripts download what only Node needs.
    run(npm(&folder).args(["ci", "--ignore-scripts"]))?;
    fingerprint.write(&stamp)?;
    Ok(folder)
}

/// The folder with the model as ONNX files; converts them from the GGUF file unless that has been done.
pub(crate) fn onnx(workspace: &Workspace, model: &Path) -> Result<PathBuf> {
    let source = workspace.bench().join("onnx");
    let requirements = source.join("requirements.txt");
    let script = source.join("convert.py");
    let work = workspace.target.join("bench/onnx");
    let folder = work.join("model");
    let stamp = folder.join(".cinderlm-stamp");
    let fingerprint = Fingerprint::default()
        .with_path(&requirements)?
        .with_path(&script)?
        .with_path(model)?;
    if fingerprint.matches(&stamp) {
        return Ok(folder);
    }
    let python = python(&work.join("venv"), &requirements)?;
    step("converting the model to ONNX for transformers.js, and checking it (a minute, once)");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(Command::new(python)
        .arg(script)
        .args([model, &folder])
        .arg(workspace.golden_model()))?;
    fingerprint.write(&stamp)?;
    Ok(folder)
}

/// A Python with what `requirements` lists, in an environment of its own.
fn python(venv: &Path, requirements: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    let stamp = venv.join(".cinderlm-stamp");
    let fingerprint = Fingerprint::default().with_path(requirements)?;
    if fingerprint.matches(&stamp) && python.is_file() {
        return Ok(python);
    }
    if debian::is_debian()
        && !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
    {
        debian::install(&["python3-venv"], "the converter is kept apart")?;
    }
    step("installing onnxruntime and what else converts the model (300 MB, once)");
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check", "-r"])
        .arg(requirements))?;
    fingerprint.write(&stamp)?;
    Ok(python)
}
