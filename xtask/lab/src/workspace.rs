//! The repository, and the programs that cargo builds of it.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

pub use preflight::say::{note, step};

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // This package is xtask/lab.
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The programs of this workspace, built for release: name to path.
pub type Programs = BTreeMap<String, PathBuf>;

/// Builds every program that runs in the lab or in its guests, and adds this one.
pub fn build() -> Result<Programs> {
    step("building plimsolld, plimsoll-vmm, plimsoll, plimsoll-agent and toucher");
    build_packages(&["plimsoll-host", "plimsoll-vmm", "plimsoll-cli", "plimsoll-agent", "toucher"])
}

/// The same without the program that runs in guests' kernels.
pub fn build_for_models() -> Result<Programs> {
    step("building plimsolld, plimsoll-vmm, plimsoll and plimsoll-agent");
    build_packages(&["plimsoll-host", "plimsoll-vmm", "plimsoll-cli", "plimsoll-agent"])
}

/// The same, and the VMM of the host's own tests, `fake_vmm`, which may be hostile.
pub fn build_with_fake_vmm() -> Result<Programs> {
    step("building plimsolld, plimsoll-vmm, plimsoll and fake_vmm");
    let mut programs = build_packages(&["plimsoll-host", "plimsoll-vmm", "plimsoll-cli"])?;
    programs.extend(build_targets(&["--package", "plimsoll-host", "--example", "fake_vmm"])?);
    Ok(programs)
}

fn build_packages(packages: &[&str]) -> Result<Programs> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    build_targets(&["--bins"].into_iter().chain(packages).collect::<Vec<_>>())
}

/// Builds what cargo's `arguments` name.
fn build_targets(arguments: &[&str]) -> Result<Programs> {
    let mut cargo = preflight::cargo::command();
    cargo.current_dir(root()).args(["build", "--release", "--locked"]).args(arguments);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo build")?;
    if !output.status.success() {
        bail!("cargo build failed: see its messages above");
    }
    let mut programs = Programs::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line).context("reading cargo's messages")?;
        if let (Some(path), Some(name)) = (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            programs.insert(name.to_owned(), path.into());
        }
    }
    programs.insert("xtask".to_owned(), env::current_exe().context("finding this program's own file")?);
    Ok(programs)
}
