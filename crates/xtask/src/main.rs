//! Set-up, build, test and tidy commands.
//!
//! `./x <command>` finds cargo, Node and Python and hands over to this program; `cargo xtask <command>` calls it directly. Every
//! command brings in what it needs and says on standard error what it is doing; standard output is kept for results.

mod arrows;
mod bench;
mod build;
mod compat;
mod complete;
mod fingerprint;
mod section;
mod setup;
mod shell;
mod size;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "x",
    bin_name = "./x",
    about = "Set-up, build, test and tidy commands of cinderlm",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, completing and testing need, without building anything.
    Setup,
    /// Build the npm package, complete, into www/package/dist/.
    Build {
        /// Compile fast instead of small: little optimisation, no wasm-opt. For daily work; never shipped.
        #[arg(long)]
        quick: bool,
        /// The demo page and the extension, too, into their own dist/.
        #[arg(long)]
        apps: bool,
    },
    /// Complete a prompt in a headless browser and stream the text to the terminal.
    Complete(Box<complete::Arguments>),
    /// Serve www/package/dist/ and the models on this machine.
    Serve {
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Run every test: Rust, TypeScript, browsers.
    Test(test::Arguments),
    /// Compare with a real server, llama-cpp-python's, which is compiled first: ten minutes, once.
    Compat(compat::Arguments),
    /// Measure cinderlm and its peers in turns: an hour or more; see docs/performance.md.
    Bench(bench::Arguments),
    /// Take the pictures in docs/images/ anew.
    Screenshots,
    /// Write the reference of the package's API into target/api/.
    Docs,
    /// Check formatting, lints on native and wasm, crate dependencies, types and sizes.
    Tidy,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup => setup::everything(&workspace),
        Task::Build { quick, apps } => {
            build::package(&workspace, build::Profile::new(quick))?;
            if apps {
                build::apps(&workspace)?;
            }
            Ok(())
        }
        Task::Complete(arguments) => complete::run(&workspace, *arguments),
        Task::Serve { port } => complete::serve(&workspace, port),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Compat(arguments) => compat::run(&workspace, &arguments),
        Task::Bench(arguments) => bench::run(&workspace, arguments),
        Task::Screenshots => test::screenshots(&workspace),
        Task::Docs => build::reference(&workspace).map(drop),
        Task::Tidy => tidy::run(&workspace),
    }
}
