//! `compat`: `cinder.fetch` and `remote` beside a real server.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::build;
use crate::setup::browsers::{self, Browser};
use crate::setup::{llama, model};
use crate::shell::{run_through, step};
use crate::test::MODEL_VARIABLE;
use crate::workspace::Workspace;

/// The name that requests give the model.
const ALIAS: &str = "smollm2";
/// Names the server to the tests of `remote`.
const REMOTE_VARIABLE: &str = "CINDERLM_REMOTE";
/// Reading the model takes seconds, importing the server's packages for the first time longer.
const START_SECONDS: u64 = 180;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Record the server's answers anew instead of comparing with those recorded.
    #[arg(long)]
    record: bool,
}

/// Compares the server's answers with the recorded ones, and ours with both.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let python = llama::provide(workspace)?;
    let model = model::provide(workspace)?;
    build::package(workspace, build::Profile::Full)?;
    let server = Server::start(&python, &model)?;
    let url = format!("http://{}", server.address);

    step("the server's answers, and those recorded");
    let mut record = Command::new("node");
    record
        .current_dir(&workspace.root)
        .arg(workspace.compat().join("record.mjs"))
        .arg(&url)
        .args(arguments.record.then_some("--record"));
    run_through(&mut record)?;

    step("cinder.fetch beside the server, and the server behind cinder.complete");
    let mut tests = Command::new("node");
    tests
        .current_dir(&workspace.root)
        .args(["--test", "--test-concurrency=1"])
        .args(["compat.test.mjs", "remote.test.mjs"].map(|name| workspace.e2e().join(name)))
        .env(MODEL_VARIABLE, &model)
        .env(REMOTE_VARIABLE, &url)
        .envs(browsers::software_vulkan()?);
    for browser in [Browser::Chromium, Browser::Firefox] {
        tests.env(browser.variable(), browser.provide(workspace)?);
    }
    run_through(&mut tests)
}

/// The server, as long as this lives.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(python: &Path, model: &Path) -> Result<Self> {
        step("starting llama-cpp-python's server");
        // Free a moment ago, which is as much as can be known.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new(python)
            .args(["-m", "llama_cpp.server", "--model"])
            .arg(model)
            .args(["--model_alias", ALIAS, "--host", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args([
                "--n_ctx",
                "2048",
                "--logits_all",
                "true",
                "--verbose",
                "false",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("llama-cpp-python's server could not be started")?;
        let mut server = Self { process, address };
        let start = Instant::now();
        while !server.answers() {
            if let Some(status) = server.process.try_wait()? {
                bail!("llama-cpp-python's server ended with {status}");
            }
            if start.elapsed() > Duration::from_secs(START_SECONDS) {
                bail!("llama-cpp-python's server does not answer");
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Whether it serves its models.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.write_all(
                b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok(status.ends_with(b"200"))
        };
        ask().unwrap_or(false)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
