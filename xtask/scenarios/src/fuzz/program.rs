//! The program with all targets.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use plimsoll_lab::workspace;

use super::left;

/// What `cargo fuzz` builds with for libFuzzer, which counts edges and looks at comparisons. There
/// is no sanitizer, so a stable compiler does: the code under test has next to no `unsafe`, and
/// what must hold is asserted. Linked dynamically, as libFuzzer is C++.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // With several, the linker throws counters away that the table of places still has.
    "-Ccodegen-units=1",
];

/// Where libFuzzer finds the target's name.
pub(super) const VARIABLE: &str = "PLIMSOLL_FUZZ_TARGET";

/// Builds it, and returns its path.
///
/// # Errors
/// Cargo fails.
pub(super) fn build() -> Result<PathBuf> {
    workspace::step("building the fuzz targets");
    let mut cargo = preflight::cargo::command();
    cargo.current_dir(workspace::root().join("fuzz"));
    cargo.args(["build", "--release", "--locked", "--quiet", "--message-format", "json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(left().join("build"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo build")?;
    if !output.status.success() {
        bail!("cargo build failed: see its messages above");
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for message in messages {
        let message: serde_json::Value =
            serde_json::from_slice(message).context("reading cargo's messages")?;
        if let (Some(path), Some("plimsoll-fuzz")) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no program plimsoll-fuzz")
}
