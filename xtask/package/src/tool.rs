//! cargo-deb: one version of it, built once into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plimsoll_lab::workspace::{self, step};
use plimsoll_lab::{cache, command};

/// The version. Its library calls itself experimental, so the program is used.
const VERSION: &str = "3.8.0";

/// The program, built if the cache does not have it.
///
/// # Errors
/// It cannot be downloaded or built.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    let home = cache::directory()?.join(format!("cargo-deb-{VERSION}"));
    let program = home.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    step(&format!("building cargo-deb {VERSION} (a minute or two, this once)"));
    let mut install = preflight::cargo::command();
    install.args(["install", "--quiet", "--locked", "--version", VERSION, "cargo-deb", "--root"]).arg(&home);
    // Neither this repository's configuration nor its directory of built files.
    install.current_dir(&home).env_remove("CARGO_TARGET_DIR");
    command::run(&mut install)?;
    Ok(program)
}

/// Has `cargo_deb` put the package of the built programs into `output`.
pub(crate) fn make(cargo_deb: &Path, output: &Path, revision: u32) -> Result<()> {
    let mut command = Command::new(cargo_deb);
    command.current_dir(workspace::root()).env("CARGO", preflight::cargo::program());
    command.args(["deb", "--package", "plimsoll-package", "--no-build", "--strip", "--quiet", "--locked"]);
    command.args([
        "--target",
        "x86_64-unknown-linux-gnu",
        "--deb-revision",
        &revision.to_string(),
        "--output",
    ]);
    command::run(command.arg(output)).context("making the Debian package")
}
