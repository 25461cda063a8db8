//! Every test there is: Rust, TypeScript, browsers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::setup::browsers::{self, Browser};
use crate::setup::{model, npm};
use crate::shell::{cargo, run_through, step};
use crate::workspace::Workspace;
use crate::{arrows, build, size, tidy};

/// Milliseconds after which node gives a browser test up, one file of them as well: several times what the longest file takes.
const TEST_MILLIS: &str = "--test-timeout=2400000";

/// Names the model file to tests.
pub(crate) const MODEL_VARIABLE: &str = "CINDERLM_MODEL";

/// With a test module's name after it, names its folder to browser tests.
const MODULE_VARIABLE: &str = "CINDERLM_MODULE_";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Run the Rust tests.
    #[arg(long)]
    native: bool,
    /// Run the TypeScript tests.
    #[arg(long)]
    ts: bool,
    /// Run the browser tests.
    #[arg(long)]
    browser: bool,
    /// Test the quickly compiled wasm module instead of the one that ships.
    #[arg(long)]
    quick: bool,
}

/// Runs the parts that were asked for; all of them when none was.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let all = !(arguments.native || arguments.ts || arguments.browser);
    if all {
        tidy::formatting(workspace)?;
        arrows::check(workspace)?;
    }
    if all || arguments.native {
        native(workspace)?;
    }
    let profile = build::Profile::new(arguments.quick);
    if all || arguments.ts || arguments.browser {
        build::package(workspace, profile)?;
        build::apps(workspace)?;
    }
    if all && profile == build::Profile::Full {
        size::check(workspace)?;
    }
    if all || arguments.ts {
        for folder in workspace.npm_folders() {
            step(&format!("TypeScript tests in {}", folder.display()));
            run_through(npm::npm(&folder).arg("test"))?;
        }
    }
    if all || arguments.browser {
        in_browsers(workspace, profile)?;
    }
    Ok(())
}

fn native(workspace: &Workspace) -> Result<()> {
    let model = model::provide(workspace)?;
    let driver = browsers::software_vulkan()?;
    step("Rust tests (the first build takes ten minutes)");
    // Apart from xtask, whose dependencies would turn on features of burn's: its own build, which runs this, is then used again.
    for packages in [["--workspace", "--exclude=xtask"], ["--package", "xtask"]] {
        let mut command = cargo();
        command
            .current_dir(&workspace.root)
            .arg("test")
            .args(packages)
            .env(MODEL_VARIABLE, &model)
            .envs(driver.clone());
        run_through(&mut command)?;
    }
    Ok(())
}

fn in_browsers(workspace: &Workspace, profile: build::Profile) -> Result<()> {
    let mut command = browser_tests(workspace)?;
    for module in &build::TEST_MODULES {
        let folder = build::test_module(workspace, profile, module)?;
        let name = module.name.to_uppercase().replace('-', "_");
        command.env(format!("{MODULE_VARIABLE}{name}"), folder);
    }
    command.args(test_files(workspace)?);
    step("browser tests");
    run_through(&mut command)
}

/// Node, with all that a browser test reads from its environment, apart from the test modules.
fn browser_tests(workspace: &Workspace) -> Result<Command> {
    let mut command = Command::new("node");
    // One file at a time: every test wants all cores for its model.
    command
        .current_dir(&workspace.root)
        .args(["--test", "--test-concurrency=1", TEST_MILLIS])
        .env(MODEL_VARIABLE, model::provide(workspace)?)
        .env(browsers::WEBKIT_VARIABLE, browsers::webkit()?)
        .envs(browsers::software_vulkan()?);
    for browser in [Browser::Chromium, Browser::Firefox] {
        command.env(browser.variable(), browser.provide(workspace)?);
    }
    Ok(command)
}

/// Takes the pictures in `docs/images/` anew, with the tests that come by what they show.
pub(crate) fn screenshots(workspace: &Workspace) -> Result<()> {
    build::package(workspace, build::Profile::Full)?;
    build::apps(workspace)?;
    step("browser tests that take pictures");
    let files = ["demo.test.mjs", "extension.test.mjs"];
    let folder = workspace.root.join("docs/images");
    run_through(
        browser_tests(workspace)?
            .args(files.map(|file| workspace.e2e().join(file)))
            .env("CINDERLM_SCREENSHOTS", folder),
    )
}

fn test_files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.e2e();
    let mut files = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    ensure!(
        !files.is_empty(),
        "no browser tests in {}",
        folder.display()
    );
    files.sort();
    Ok(files)
}
