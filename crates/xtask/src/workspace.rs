//! Where things are in the checkout.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::setup::toolchain::Threads;

/// The checkout and the folder that build products go to.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// cargo's target folder: `target/`, or what `CARGO_TARGET_DIR` names.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the checkout from the folder that `cargo run` reports, so that a cached binary never points at an old checkout.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .context("run this through `./x` or `cargo xtask`, which say where the checkout is")?;
        let root = Path::new(&manifest)
            .ancestors()
            .nth(2)
            .context("the xtask crate is not two folders below the root of the checkout")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir()?.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Build products of the wasm side, apart from the native ones and with threads from those without: compilers and flags differ.
    pub(crate) fn wasm_target(&self, threads: Threads) -> PathBuf {
        self.target.join(match threads {
            Threads::One => "wasm",
            Threads::Many => "wasm-threads",
        })
    }

    /// Downloaded model files.
    pub(crate) fn models(&self) -> PathBuf {
        self.target.join("models")
    }

    /// The npm package.
    pub(crate) fn package(&self) -> PathBuf {
        self.root.join("www/package")
    }

    /// The demo page and the extension.
    pub(crate) fn apps(&self) -> [PathBuf; 2] {
        ["demo", "extension"].map(|name| self.root.join("www").join(name))
    }

    /// Everything that is written in TypeScript.
    pub(crate) fn npm_folders(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.package()).chain(self.apps())
    }

    /// What wasm-bindgen writes, and the package's build reads.
    pub(crate) fn generated(&self) -> PathBuf {
        self.package().join("generated")
    }

    /// The finished package.
    pub(crate) fn dist(&self) -> PathBuf {
        self.package().join("dist")
    }

    /// What is compared with a real server.
    pub(crate) fn compat(&self) -> PathBuf {
        self.root.join("tests/compat")
    }

    /// What measures cinderlm and its peers.
    pub(crate) fn bench(&self) -> PathBuf {
        self.root.join("tests/bench")
    }

    /// What the model that tests run must give.
    pub(crate) fn golden_model(&self) -> PathBuf {
        self.root.join("tests/golden/smollm2-135m-instruct-q4_1")
    }

    /// The browser harness and its tests.
    pub(crate) fn e2e(&self) -> PathBuf {
        self.root.join("tests/e2e")
    }
}
