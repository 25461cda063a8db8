//! Installing Debian packages.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{find_program, run, step, succeeds};

/// Nothing of the user's is removed to make room: some of Debian's Rust packages exclude one another.
const INSTALL: &[&str] = &["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Whether this is a Debian system: its derivatives name some of the packages differently.
pub(crate) fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
        && find_program(&["apt-get"]).is_some()
}

/// The command that a person would run.
pub(crate) fn install_command(packages: &[&str]) -> String {
    format!("sudo apt-get install {}", packages.join(" "))
}

/// Installs packages with apt-get, through sudo unless run as root.
pub(crate) fn install(packages: &[&str], reason: &str) -> Result<()> {
    step(&format!(
        "installing {} with apt-get: {reason}",
        packages.join(", ")
    ));
    // Lists that are missing, as in a container, or old would give nothing, or a browser of last year. Without a network those that
    // are there must do.
    if apt_get(&["update"], &[]).is_err() {
        step("apt-get update failed: going on with the package lists that are here");
    }
    apt_get(INSTALL, packages)
        .with_context(|| format!("run `{}` and try again", install_command(packages)))
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<()> {
    let is_root = succeeds(Command::new("sh").args(["-c", "[ \"$(id -u)\" = 0 ]"]));
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    run(command
        .args(arguments)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}
