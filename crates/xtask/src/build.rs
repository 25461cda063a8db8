//! The npm package, from Rust to `www/package/dist/`.
//!
//! cargo links the wasm module, wasm-bindgen writes its JavaScript side, wasm-opt shrinks it, and the package's own build
//! bundles the rest. cargo knows by itself what is up to date; the later steps keep stamps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use wasm_bindgen_cli_support::Bindgen;

use crate::fingerprint::Fingerprint;
use crate::section::check_no_command_exports;
use crate::setup::npm;
use crate::setup::toolchain::{TARGET, Threads, WasmToolchain};
use crate::shell::{run, step};
use crate::workspace::Workspace;

/// What cargo calls the linked module.
const LINKED: &str = "cinderlm_wasm.wasm";

/// A module that ships. There is one for each kind of device, so that a page downloads and keeps only what it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    Webgpu,
    Cpu,
    /// The CPU in pages whose workers may share memory.
    CpuThreads,
}

impl Module {
    pub(crate) const ALL: [Self; 3] = [Self::Webgpu, Self::Cpu, Self::CpuThreads];

    /// Its name, in files and in the JavaScript that imports it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Webgpu => "webgpu",
            Self::Cpu => "cpu",
            Self::CpuThreads => "cpu-threads",
        }
    }

    pub(crate) fn threads(self) -> Threads {
        match self {
            Self::Webgpu | Self::Cpu => Threads::One,
            Self::CpuThreads => Threads::Many,
        }
    }

    /// cargo's arguments for the device that is built in.
    pub(crate) fn features(self) -> [&'static str; 3] {
        let device = match self {
            Self::Webgpu => "webgpu",
            Self::Cpu | Self::CpuThreads => "cpu",
        };
        ["--no-default-features", "--features", device]
    }
}

/// A module that only tests use, an example of the wasm crate.
pub(crate) struct TestModule {
    /// The folder that it goes to.
    pub(crate) name: &'static str,
    example: &'static str,
    /// The module that ships whose device it has, and whose dependencies are used again.
    like: Module,
}

/// The kernels' cases, on either device and with threads, and the whole module on a scripted model.
pub(crate) const TEST_MODULES: [TestModule; 4] = [
    TestModule {
        name: "selftest-webgpu",
        example: "selftest",
        like: Module::Webgpu,
    },
    TestModule {
        name: "selftest-cpu",
        example: "selftest",
        like: Module::Cpu,
    },
    TestModule {
        name: "selftest-threads",
        example: "selftest",
        like: Module::CpuThreads,
    },
    TestModule {
        name: "scripted",
        example: "scripted",
        like: Module::Cpu,
    },
];

/// What wasm-opt does. The features are named one by one: with all of them on it writes a module that browsers refuse.
const WASM_OPT: &[&str] = &[
    "-Oz",
    // Without a limit it makes functions of 160 kB, and compiling one of those in the browser takes tens of megabytes.
    "--one-caller-inline-max-function-size=300",
    "--strip-debug",
    "--strip-producers",
    "--enable-simd",
    "--enable-threads",
    "--enable-bulk-memory",
    "--enable-reference-types",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-multivalue",
];

/// How the wasm module is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What ships: small, and slow to build.
    Full,
    /// For daily work: fast to build, some ten times larger.
    Quick,
}

impl Profile {
    pub(crate) fn new(quick: bool) -> Self {
        if quick { Self::Quick } else { Self::Full }
    }

    /// The cargo profile.
    fn name(self) -> &'static str {
        match self {
            Self::Full => "wasm",
            Self::Quick => "quick",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Full => "optimised; some ten minutes the first time",
            Self::Quick => "quick; some five minutes the first time",
        }
    }
}

/// Builds the whole package.
pub(crate) fn package(workspace: &Workspace, profile: Profile) -> Result<()> {
    npm::install(workspace)?;
    for module in Module::ALL {
        let linked = link(workspace, module, profile)?;
        bind(workspace, module, &linked, profile)?;
    }
    bundle(workspace)
}

/// Builds what the package is used in here: the demo page and the extension, into their own `dist/`.
pub(crate) fn apps(workspace: &Workspace) -> Result<()> {
    for folder in workspace.apps() {
        step(&format!("npm run build in {}", folder.display()));
        run(npm::npm(&folder).args(["run", "build"]))?;
    }
    Ok(())
}

/// Writes the reference of the package's API; what its comments refer to must be there. Returns where.
pub(crate) fn reference(workspace: &Workspace) -> Result<PathBuf> {
    let out = workspace.target.join("api");
    step(&format!(
        "typedoc: the reference of the API, into {}",
        out.display()
    ));
    let typedoc = workspace.root.join("node_modules/.bin/typedoc");
    run(Command::new(typedoc)
        .current_dir(workspace.package())
        .arg("--out")
        .arg(&out))?;
    Ok(out)
}

/// Compiles and links the wasm crate. The product's place is that of other modules, too: it is to be used at once.
fn link(workspace: &Workspace, module: Module, profile: Profile) -> Result<PathBuf> {
    step(&format!(
        "compiling the wasm module `{}` ({})",
        module.name(),
        profile.describe()
    ));
    let threads = module.threads();
    run(WasmToolchain::provide(threads)?
        .cargo(workspace, "build", threads)
        .args(["--profile", profile.name()])
        .args(module.features()))?;
    Ok(products(workspace, threads, profile).join(LINKED))
}

fn products(workspace: &Workspace, threads: Threads, profile: Profile) -> PathBuf {
    let target = workspace.wasm_target(threads).join(TARGET);
    target.join(profile.name())
}

/// Makes the module's JavaScript side and, for the full profile, shrinks the module.
fn bind(workspace: &Workspace, module: Module, linked: &Path, profile: Profile) -> Result<()> {
    let folder = workspace.generated().join(module.name());
    let stamp = folder.join(".stamp");
    let fingerprint = Fingerprint::default()
        .with_text(profile.name())
        .with_text(&WASM_OPT.join(" "))
        .with_path(linked)?
        .with_path(&workspace.root.join("Cargo.lock"))?;
    if fingerprint.matches(&stamp) {
        return Ok(());
    }
    bind_into(&folder, module.name(), linked)?;
    if profile == Profile::Full {
        shrink(
            workspace,
            &folder.join(format!("{}_bg.wasm", module.name())),
        )?;
    }
    fingerprint.write(&stamp)
}

/// Writes a module and its JavaScript side into `folder`, in place of what is there.
fn bind_into(folder: &Path, name: &str, linked: &Path) -> Result<()> {
    let module = fs::read(linked).with_context(|| format!("cannot read {}", linked.display()))?;
    check_no_command_exports(&module)?;
    step(&format!("wasm-bindgen: the JavaScript side of {name}"));
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let mut bindgen = Bindgen::new();
    bindgen
        .input_bytes(name, module)
        .web(true)?
        .typescript(true)
        .generate(folder)
}

/// Builds a module that tests use; returns the folder that its JavaScript side is in, under the example's name.
pub(crate) fn test_module(
    workspace: &Workspace,
    profile: Profile,
    module: &TestModule,
) -> Result<PathBuf> {
    let TestModule {
        name,
        example,
        like,
    } = module;
    step(&format!(
        "compiling the module `{name}`, which tests use in browsers"
    ));
    let threads = like.threads();
    let mut command = WasmToolchain::provide(threads)?.cargo(workspace, "build", threads);
    command.args(["--example", example, "--profile", profile.name()]);
    command.args(like.features());
    run(&mut command)?;
    let examples = products(workspace, threads, profile).join("examples");
    let folder = workspace.target.join(name);
    bind_into(&folder, example, &examples.join(format!("{example}.wasm")))?;
    Ok(folder)
}

fn shrink(workspace: &Workspace, module: &Path) -> Result<()> {
    step("wasm-opt: shrinking the module (about a minute)");
    let shrunk = module.with_extension("shrunk");
    let wasm_opt = workspace.root.join("node_modules/.bin/wasm-opt");
    run(Command::new(wasm_opt)
        .args(WASM_OPT)
        .arg(module)
        .arg("-o")
        .arg(&shrunk))?;
    fs::rename(&shrunk, module)?;
    Ok(())
}

/// Runs the package's own build.
fn bundle(workspace: &Workspace) -> Result<()> {
    let package = workspace.package();
    // Not in dist/, all of which ships.
    let stamp = workspace.generated().join(".bundled");
    let mut fingerprint = Fingerprint::default();
    for input in [
        "src",
        "generated/webgpu/.stamp",
        "generated/cpu/.stamp",
        "generated/cpu-threads/.stamp",
        "package.json",
        "tsconfig.json",
        "tsconfig.types.json",
        "build.mjs",
        "../../package-lock.json",
    ] {
        fingerprint = fingerprint.with_path(&package.join(input))?;
    }
    if fingerprint.matches(&stamp) && workspace.dist().join("index.js").is_file() {
        return Ok(());
    }
    step("npm run build: the package, into www/package/dist/");
    run(npm::npm(&package).args(["run", "build"]))?;
    fingerprint.write(&stamp)
}
