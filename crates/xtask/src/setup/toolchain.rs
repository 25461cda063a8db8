//! The Rust compiler for `wasm32-unknown-unknown`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup::debian;
use crate::shell::{capture, cargo, find_program, run, step, succeeds};
use crate::workspace::Workspace;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// WebAssembly's fixed-width SIMD, on which the CPU kernels rest; every browser with WebGPU has it.
const RUSTFLAGS: &str = "-C target-feature=+simd128";

/// What a module with threads is compiled with besides: atomics, and a memory that is made outside and shared, of up to 4 GiB. wasm-bindgen
/// makes each thread's stack and thread-local storage and needs to see where they are.
const THREADS_RUSTFLAGS: &str = "-C target-feature=+simd128,+atomics,+bulk-memory,+mutable-globals \
    -C link-arg=--shared-memory -C link-arg=--import-memory -C link-arg=--max-memory=4294967296 \
    -C link-arg=--export=__wasm_init_tls -C link-arg=--export=__tls_size -C link-arg=--export=__tls_align \
    -C link-arg=--export=__tls_base";

/// Debian's Rust for building browsers: newer than its other one, and with the standard library's source.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-22"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "wasm-ld-22";
const DEBIAN_STD_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// The oldest compiler that burn 0.22 builds with.
const MIN_MINOR_VERSION: u32 = 95;

/// A tool that comes with the native side's compiler but is left out of small installations.
#[derive(Clone, Copy)]
pub(crate) enum Component {
    Rustfmt,
    Clippy,
}

impl Component {
    /// Makes sure that the tool is there.
    pub(crate) fn provide(self) -> Result<()> {
        let (subcommand, rustup_name, debian_package) = match self {
            Self::Rustfmt => ("fmt", "rustfmt", "rustfmt-web"),
            Self::Clippy => ("clippy", "clippy", "rust-web-clippy"),
        };
        if succeeds(cargo().args([subcommand, "--version"])) {
            return Ok(());
        }
        if find_program(&["rustup"]).is_some() {
            step(&format!("adding {rustup_name} with rustup"));
            return run(Command::new("rustup").args(["component", "add", rustup_name]));
        }
        if debian::is_debian() {
            return debian::install(&[debian_package], "it belongs to the Rust compiler here");
        }
        bail!(
            "`cargo {subcommand}` is missing; install {rustup_name} for the Rust compiler here and try again"
        );
    }
}

/// What a wasm module is compiled for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// Any page.
    One,
    /// Pages that are cross-origin isolated, which may share memory between workers. The standard library is compiled along, with atomics.
    Many,
}

/// A compiler that can build for the browser.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WasmToolchain {
    /// The native side's own, with the target's standard library installed.
    Native,
    /// Debian's packages, which compile the standard library along.
    Debian,
}

impl WasmToolchain {
    /// Finds a toolchain that can build for these threads, or installs one.
    pub(crate) fn provide(threads: Threads) -> Result<Self> {
        let toolchain = Self::provide_target()?;
        match threads {
            Threads::One => Ok(toolchain),
            Threads::Many => toolchain.with_std_source(),
        }
    }

    /// This toolchain, if the standard library's source is there or can be had, or else Debian's, which has it.
    fn with_std_source(self) -> Result<Self> {
        if self == Self::Debian || native_has_std_source() {
            return Ok(self);
        }
        if debian_is_complete() {
            return Ok(Self::Debian);
        }
        if find_program(&["rustup"]).is_some() {
            step(
                "adding rust-src with rustup: the standard library is compiled along with threads",
            );
            let added = run(Command::new("rustup").args(["component", "add", "rust-src"]));
            if added.is_ok() && native_has_std_source() {
                return Ok(self);
            }
        }
        Self::install_debian().context(
            "the module with threads needs the standard library's source: run `rustup component add rust-src` and try again",
        )
    }

    /// Finds a toolchain, or installs one: the installed target, then rustup's, then Debian's packages.
    ///
    /// Debian's are taken without asking rustup first when they are there already: a rustup that cannot reach its server
    /// would otherwise fail anew on each call.
    fn provide_target() -> Result<Self> {
        if native_has_target() {
            return Ok(Self::Native);
        }
        if debian_is_complete() {
            return Ok(Self::Debian);
        }
        if find_program(&["rustup"]).is_some() {
            step(&format!(
                "adding the Rust target {TARGET} with rustup: it builds the wasm module"
            ));
            if run(Command::new("rustup").args(["target", "add", TARGET])).is_ok() {
                return Ok(Self::Native);
            }
        }
        Self::install_debian()
    }

    fn install_debian() -> Result<Self> {
        ensure!(
            debian::is_debian(),
            "no Rust compiler here can build for {TARGET}; run `rustup target add {TARGET}` (rustup is at https://rustup.rs) and try again"
        );
        debian::install(
            DEBIAN_PACKAGES,
            "a Rust compiler that can build the wasm module",
        )?;
        ensure!(
            debian_is_complete(),
            "Debian's Rust is older than 1.{MIN_MINOR_VERSION} here; install Rust from https://rustup.rs and run `rustup target add {TARGET}`"
        );
        Ok(Self::Debian)
    }

    /// `cargo <subcommand>` for the crate `cinderlm-wasm` and its dependencies.
    pub(crate) fn cargo(
        self,
        workspace: &Workspace,
        subcommand: &str,
        threads: Threads,
    ) -> Command {
        let mut command = match self {
            Self::Native => cargo(),
            Self::Debian => debian_command(DEBIAN_CARGO),
        };
        command.arg(subcommand);
        self.aim(&mut command, workspace, threads);
        command
    }

    /// clippy for the same, with the lint configuration in `folder`.
    pub(crate) fn clippy(
        self,
        workspace: &Workspace,
        folder: &Path,
        threads: Threads,
    ) -> Result<Command> {
        let mut command = match self {
            Self::Native => cargo(),
            Self::Debian => {
                if !Path::new(DEBIAN_CLIPPY).is_file() {
                    debian::install(
                        &["rust-web-clippy"],
                        "the linter that matches the wasm compiler",
                    )?;
                }
                debian_command(DEBIAN_CLIPPY)
            }
        };
        command.arg("clippy").env("CLIPPY_CONF_DIR", folder);
        self.aim(&mut command, workspace, threads);
        Ok(command)
    }

    fn aim(self, command: &mut Command, workspace: &Workspace, threads: Threads) {
        let flags = match threads {
            Threads::One => RUSTFLAGS,
            Threads::Many => THREADS_RUSTFLAGS,
        };
        command
            .current_dir(&workspace.root)
            .args(["--package", "cinderlm-wasm", "--target", TARGET])
            .env("CARGO_TARGET_DIR", workspace.wasm_target(threads))
            .env("RUSTFLAGS", flags);
        if self == Self::Debian || threads == Threads::Many {
            // build-std is unstable; the compiler's own standard library is what it compiles, so the versions cannot differ.
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC_BOOTSTRAP", "1");
        }
    }
}

/// A command of Debian's toolchain, cleared of what the cargo that runs this program has set for its own compiler.
fn debian_command(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "LD_LIBRARY_PATH"] {
        command.env_remove(variable);
    }
    command
        .env("CARGO", DEBIAN_CARGO)
        .env("RUSTC", DEBIAN_RUSTC)
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
    command
}

fn native_has_target() -> bool {
    native_has(&format!("{TARGET}/lib"))
}

fn native_has_std_source() -> bool {
    native_has("src/rust/library/std")
}

/// Whether the native side's compiler has this folder among its libraries.
fn native_has(folder: &str) -> bool {
    capture(Command::new("rustc").args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(folder)
            .is_dir()
    })
}

fn debian_is_complete() -> bool {
    Path::new(DEBIAN_CARGO).is_file()
        && Path::new(DEBIAN_STD_SOURCE).is_dir()
        && find_program(&[DEBIAN_LINKER]).is_some()
        && succeeds(Command::new(DEBIAN_RUSTC).arg("--version"))
        && capture(Command::new(DEBIAN_RUSTC).arg("--version"))
            .and_then(|version| minor_version(&version))
            .is_ok_and(|minor| minor >= MIN_MINOR_VERSION)
}

/// The 96 of `rustc 1.96.0 (…)`.
fn minor_version(version: &str) -> Result<u32> {
    let number = version
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.strip_prefix("1."));
    let minor = number
        .and_then(|rest| rest.split('.').next())
        .and_then(|minor| minor.parse().ok());
    minor.with_context(|| format!("cannot read the compiler's version from `{version}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_compilers_version() {
        let check = |text: &str, expect: Option<u32>| {
            assert_eq!(minor_version(text).ok(), expect, "{text}")
        };
        check(
            "rustc 1.96.0 (30a34c682 2026-05-25) (built from a source tarball)",
            Some(96),
        );
        check("rustc 1.97.0-nightly (abc 2026-06-01)", Some(97));
        check("rustc 2.0.0", None);
        check("", None);
    }
}
