//! `bench`: cinderlm and its peers, measured in turns.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::build;
use crate::setup::browsers::{self, Browser};
use crate::setup::{llama, model, npm, peers};
use crate::shell::{capture, run_through, step};
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Who is measured, as a,b,c; the default is everyone. `tests/bench/contenders.mjs` lists them.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// How many turns each has; medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// What is measured, as a,b,c; the default is everything. `tests/bench/measures.mjs` lists it.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<String>,
    /// One round of few tokens: to see that it runs, not to be believed.
    #[arg(long)]
    quick: bool,
    /// Run WebGPU on whatever GPU Chromium finds, instead of in software.
    #[arg(long)]
    hardware: bool,
    /// Where everything that was measured goes, as JSON; the default is bench/<date>.json in the target folder.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure what is in www/package/dist/ as it is.
    #[arg(long)]
    no_build: bool,
}

/// What tests/bench/bench.mjs is told.
#[derive(Serialize)]
struct Task {
    contenders: Vec<String>,
    rounds: u32,
    measures: Vec<String>,
    quick: bool,
    hardware: bool,
    json: PathBuf,
    model: PathBuf,
    /// The folder whose node_modules has the peers' packages.
    peers: Option<PathBuf>,
    /// The model as transformers.js reads it.
    onnx: Option<PathBuf>,
    /// The Python that has llama-cpp-python.
    python: Option<PathBuf>,
}

/// Brings in what the contenders need, and measures them.
pub(crate) fn run(workspace: &Workspace, arguments: Arguments) -> Result<()> {
    let needs = needs(workspace, &arguments.contenders)?;
    let model = model::provide(workspace)?;
    let mut node = Command::new("node");
    node.current_dir(&workspace.root)
        .arg(workspace.bench().join("bench.mjs"));
    let mut task = Task {
        contenders: arguments.contenders,
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        measures: arguments.measures,
        quick: arguments.quick,
        hardware: arguments.hardware,
        json: match arguments.json {
            Some(path) => env::current_dir()?.join(path),
            None => workspace.target.join(format!("bench/{}.json", now()?)),
        },
        model,
        peers: None,
        onnx: None,
        python: None,
    };
    let mut browsers = vec![Browser::Chromium];
    for need in needs {
        match need.as_str() {
            "peers" => task.peers = Some(peers::packages(workspace)?),
            "onnx" => task.onnx = Some(peers::onnx(workspace, &task.model)?),
            "llama" => task.python = Some(llama::provide(workspace)?),
            "firefox" => browsers.push(Browser::Firefox),
            other => bail!("tests/bench/contenders.mjs needs {other}, which is not known here"),
        }
    }
    if arguments.no_build {
        npm::install(workspace)?;
        ensure!(
            workspace.dist().is_dir(),
            "www/package/dist/ is not there; leave --no-build out"
        );
    } else {
        build::package(workspace, build::Profile::Full)?;
    }
    if !task.hardware && browsers.contains(&Browser::Firefox) {
        node.envs(browsers::software_vulkan()?);
    }
    for browser in browsers {
        node.env(browser.variable(), browser.provide(workspace)?);
    }
    step("measuring");
    run_through(node.arg(serde_json::to_string(&task)?))
}

/// What must be installed for these contenders.
fn needs(workspace: &Workspace, contenders: &[String]) -> Result<Vec<String>> {
    let listed = capture(
        Command::new("node")
            .arg(workspace.bench().join("contenders.mjs"))
            .arg(contenders.join(",")),
    )?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// The time, as a file may be named: 2026-11-25T08-15-00.
fn now() -> Result<String> {
    let script = "process.stdout.write(new Date().toISOString().slice(0, 19).replaceAll(':', '-'))";
    capture(Command::new("node").args(["-e", script]))
}
