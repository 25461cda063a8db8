//! Which crate may depend on which: the arrows of ARCHITECTURE.md.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::shell::{capture, cargo, step};
use crate::workspace::Workspace;

/// Each crate of the project and the project's crates that it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cinderlm-protocol", &[]),
    ("cinderlm-sampler", &[]),
    ("cinderlm-tokenizer", &[]),
    ("cinderlm-weights", &[]),
    ("cinderlm-kernels", &["cinderlm-weights"]),
    ("cinderlm-models", &["cinderlm-weights", "cinderlm-kernels"]),
    (
        "cinderlm-engine",
        &[
            "cinderlm-protocol",
            "cinderlm-sampler",
            "cinderlm-tokenizer",
            "cinderlm-weights",
            "cinderlm-kernels",
            "cinderlm-models",
        ],
    ),
    (
        "cinderlm-wasm",
        &[
            "cinderlm-protocol",
            "cinderlm-sampler",
            "cinderlm-tokenizer",
            "cinderlm-weights",
            "cinderlm-kernels",
            "cinderlm-models",
            "cinderlm-engine",
        ],
    ),
    ("xtask", &[]),
];

/// A family of packages from outside, by the start of their names, and the only crates that may name one.
const RESERVED: &[(&str, &[&str])] = &[
    (
        "burn",
        &["cinderlm-kernels", "cinderlm-models", "cinderlm-wasm"],
    ),
    ("cubecl", &["cinderlm-kernels"]),
    ("wasm-bindgen", &["cinderlm-wasm", "xtask"]),
    ("js-sys", &["cinderlm-wasm"]),
    ("web-sys", &["cinderlm-wasm"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev` or `build`; none for an ordinary dependency.
    kind: Option<String>,
}

/// Checks what the manifests say. Tests may use what they like, so dev-dependencies are free.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    step("dependency arrows between crates");
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = capture(cargo().current_dir(&workspace.root).args(arguments))?;
    let metadata: Metadata =
        serde_json::from_str(&output).context("cannot read `cargo metadata`")?;
    let faults = faults(&metadata.packages);
    ensure!(
        faults.is_empty(),
        "dependency arrows:\n  {}",
        faults.join("\n  ")
    );
    Ok(())
}

fn faults(packages: &[Package]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let Some(own) = allowed.get(name) else {
            faults.push(format!(
                "{name} has no place in the table of crates/xtask/src/arrows.rs"
            ));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        {
            let target = dependency.name.as_str();
            if target.starts_with("cinderlm-") && !own.contains(&target) {
                faults.push(format!("{name} must not depend on {target}"));
            }
            let reserved = RESERVED
                .iter()
                .find(|(family, _)| target.starts_with(family));
            if reserved.is_some_and(|(_, users)| !users.contains(&name)) {
                faults.push(format!(
                    "{name} must not depend on {target}, which is kept to the crates that need it"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_one_way() {
        let check = |name: &str, target: &str, kind: Option<&str>, expect: usize| {
            let dependency = Dependency {
                name: target.to_owned(),
                kind: kind.map(str::to_owned),
            };
            let package = Package {
                name: name.to_owned(),
                dependencies: vec![dependency],
            };
            assert_eq!(
                faults(&[package]).len(),
                expect,
                "{name} -> {target} ({kind:?})"
            );
        };
        check("cinderlm-models", "cinderlm-kernels", None, 0);
        check("cinderlm-kernels", "cinderlm-models", None, 1);
        check("cinderlm-protocol", "cinderlm-sampler", None, 1);
        check("cinderlm-protocol", "cinderlm-sampler", Some("dev"), 0);
        check("cinderlm-protocol", "serde", None, 0);
        check("cinderlm-weights", "burn", None, 1);
        check("cinderlm-engine", "burn-wgpu", Some("build"), 1);
        check("cinderlm-models", "wasm-bindgen", None, 1);
        check("cinderlm-models", "burn", None, 0);
        check("newcomer", "serde", None, 1);
    }
}
