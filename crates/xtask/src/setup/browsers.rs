//! The browsers that completions and tests run in, and the software GPU that the tests use.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::setup::debian;
use crate::shell::{capture, find_program, run, step};
use crate::workspace::Workspace;

/// A browser that the harness can drive.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Browser {
    Chromium,
    Firefox,
}

/// How one browser is found.
struct Facts {
    /// Environment variable that names the program, for the search here and for the harness.
    variable: &'static str,
    programs: &'static [&'static str],
    mac_paths: &'static [&'static str],
    debian_package: &'static str,
    /// The oldest major version that has WebGPU; in Firefox, on Linux.
    min_version: u32,
}

impl Browser {
    /// The name that the harness knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        }
    }

    /// The environment variable through which the harness is told where it is.
    pub(crate) fn variable(self) -> &'static str {
        self.facts().variable
    }

    fn facts(self) -> Facts {
        match self {
            Self::Chromium => Facts {
                variable: "CHROMIUM",
                programs: &[
                    "chromium",
                    "chromium-browser",
                    "google-chrome-stable",
                    "google-chrome",
                    "microsoft-edge",
                ],
                mac_paths: &[
                    "/Applications/Chromium.app/Contents/MacOS/Chromium",
                    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
                ],
                debian_package: "chromium",
                min_version: 113,
            },
            Self::Firefox => Facts {
                variable: "FIREFOX",
                programs: &["firefox-esr", "firefox"],
                mac_paths: &["/Applications/Firefox.app/Contents/MacOS/firefox"],
                debian_package: "firefox-esr",
                min_version: 153,
            },
        }
    }

    /// Where the browser is; installs it where that is possible.
    pub(crate) fn provide(self, workspace: &Workspace) -> Result<PathBuf> {
        let facts = self.facts();
        if let Some(path) = env::var_os(facts.variable).map(PathBuf::from) {
            ensure!(
                path.is_file(),
                "{} names {}, which is no file",
                facts.variable,
                path.display()
            );
            return Ok(path);
        }
        let found = facts.find();
        if let Some(path) = &found
            && facts.is_new_enough(path)?
        {
            return Ok(path.clone());
        }
        if debian::is_debian() {
            debian::install(&[facts.debian_package], "a browser to run in")?;
            let path = facts.find().with_context(|| {
                format!("{} was installed but is not on PATH", facts.debian_package)
            })?;
            ensure!(facts.is_new_enough(&path)?, facts.too_old(&path));
            return Ok(path);
        }
        if let Some(path) = found {
            bail!(facts.too_old(&path));
        }
        match self {
            Self::Chromium => playwright_chromium(workspace),
            Self::Firefox => bail!(
                "Firefox was not found; install it from https://www.mozilla.org/firefox, or set {} to where it is",
                facts.variable
            ),
        }
    }
}

impl Facts {
    fn find(&self) -> Option<PathBuf> {
        let on_mac = || {
            self.mac_paths
                .iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
        };
        find_program(self.programs).or_else(on_mac)
    }

    fn is_new_enough(&self, path: &Path) -> Result<bool> {
        let text = capture(Command::new(path).arg("--version"))?;
        let version = major_version(&text)
            .with_context(|| format!("cannot read {}'s version from `{text}`", path.display()))?;
        Ok(version >= self.min_version)
    }

    fn too_old(&self, path: &Path) -> String {
        let (path, version) = (path.display(), self.min_version);
        format!(
            "{path} is older than version {version}, the first that will do; update it, or set {} to another",
            self.variable
        )
    }
}

/// The environment variable that names WebKitGTK's MiniBrowser to the harness.
pub(crate) const WEBKIT_VARIABLE: &str = "WEBKIT";

/// Where WebKitGTK's MiniBrowser is, which the packed package is tried in; installs it, its WebDriver and a display for it where that is
/// possible.
pub(crate) fn webkit() -> Result<PathBuf> {
    if let Some(path) = env::var_os(WEBKIT_VARIABLE).map(PathBuf::from) {
        return Ok(path);
    }
    let packages = ["webkit2gtk-driver", "libwebkit2gtk-4.1-0", "xvfb"];
    let find = || {
        let has_programs = ["WebKitWebDriver", "Xvfb"]
            .iter()
            .all(|program| find_program(&[program]).is_some());
        mini_browser().filter(|_| has_programs)
    };
    if let Some(path) = find() {
        return Ok(path);
    }
    if debian::is_debian() {
        debian::install(&packages, "WebKit, a third engine to test in")?;
    }
    find().with_context(|| {
        format!(
            "WebKitGTK's MiniBrowser, WebKitWebDriver and Xvfb are needed for the browser tests; on Debian and Ubuntu run `{}`, elsewhere set {WEBKIT_VARIABLE} to the MiniBrowser",
            debian::install_command(&packages)
        )
    })
}

/// A program that its packages keep out of `PATH`, in a folder that is named after the machine.
fn mini_browser() -> Option<PathBuf> {
    let libraries = ["/usr/lib", "/usr/libexec", "/usr/lib64"];
    let folders = libraries.iter().flat_map(|folder| {
        let within = fs::read_dir(folder).into_iter().flatten();
        let within = within.filter_map(|entry| Some(entry.ok()?.path()));
        within.chain([PathBuf::from(folder)])
    });
    folders
        .map(|folder| folder.join("webkit2gtk-4.1/MiniBrowser"))
        .find(|path| path.is_file())
}

/// The 153 of `Mozilla Firefox 153.7.0esr`.
fn major_version(text: &str) -> Option<u32> {
    text.split_whitespace()
        .find_map(|word| word.split('.').next()?.parse().ok())
}

/// The Chromium that Playwright downloads for itself, for systems without a package of it.
fn playwright_chromium(workspace: &Workspace) -> Result<PathBuf> {
    let find = || -> Result<PathBuf> {
        let script = "process.stdout.write(require('playwright-core').chromium.executablePath())";
        Ok(PathBuf::from(capture(
            Command::new("node")
                .current_dir(&workspace.root)
                .args(["-e", script]),
        )?))
    };
    let path = find()?;
    if !path.is_file() {
        step("downloading Playwright's Chromium: a browser to run in");
        let arguments = ["playwright-core", "install", "chromium"];
        run(Command::new("npx").current_dir(&workspace.root).args(arguments)).context(
            "Chromium was not found; install Chromium or Chrome, or set CHROMIUM to where it is, or run `npx playwright-core install chromium`",
        )?;
    }
    Ok(path)
}

/// What to set so that Vulkan programs use Mesa's lavapipe, a GPU in software: the same results on every Linux machine.
///
/// None on systems where wgpu does not go through Vulkan, or where the caller has chosen a driver.
pub(crate) fn software_vulkan() -> Result<Option<(&'static str, PathBuf)>> {
    const VARIABLE: &str = "VK_ICD_FILENAMES";
    if !cfg!(target_os = "linux")
        || env::var_os(VARIABLE).is_some()
        || env::var_os("VK_DRIVER_FILES").is_some()
    {
        return Ok(None);
    }
    if let Some(driver) = lavapipe() {
        return Ok(Some((VARIABLE, driver)));
    }
    let packages = ["mesa-vulkan-drivers", "libvulkan1"];
    if debian::is_debian() {
        debian::install(
            &packages,
            "a GPU in software, on which the WebGPU kernels are tested",
        )?;
    }
    let driver = lavapipe().with_context(|| {
        format!(
            "Mesa's lavapipe driver was not found; on Debian and Ubuntu run `{}`",
            debian::install_command(&packages)
        )
    })?;
    Ok(Some((VARIABLE, driver)))
}

/// The driver's manifest: named after the machine's architecture in some versions of Mesa and not in others.
fn lavapipe() -> Option<PathBuf> {
    let folders = [
        "/usr/share/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
        "/etc/vulkan/icd.d",
    ];
    let own = format!("lvp_icd.{}.json", env::consts::ARCH);
    folders.iter().map(Path::new).find_map(|folder| {
        let names: Vec<_> = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let is_ours = |name: &&String| **name == own || **name == "lvp_icd.json";
        names.iter().find(is_ours).map(|name| folder.join(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_browsers_versions() {
        let check =
            |text: &str, expect: Option<u32>| assert_eq!(major_version(text), expect, "{text}");
        check("Mozilla Firefox 153.7.0esr", Some(153));
        check(
            "Chromium 156.0.8078.79 built on Debian GNU/Linux 12 (bookworm)",
            Some(156),
        );
        check("Google Chrome 156.0.8078.79 ", Some(156));
        check("no number", None);
    }
}
