//! Cargo: its components, and its directory of built files.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The components that `cargo xtask test` runs: name for rustup, and cargo's command.
pub(crate) const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "fmt"), ("clippy", "clippy")];

/// The cargo that started this program.
pub(crate) fn program() -> PathBuf {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

/// Those of [`COMPONENTS`] that are not installed.
pub(crate) fn missing_components() -> Vec<&'static str> {
    let absent = |command: &str| {
        let mut cargo = Command::new(program());
        // rustup has a program for each, which fails where the component is not installed.
        cargo.args([command, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        !cargo.status().is_ok_and(|status| status.success())
    };
    COMPONENTS.iter().filter(|(_, command)| absent(command)).map(|(name, _)| *name).collect()
}

/// The directory of built files, which this program is in: DIRECTORY/TARGET/release/preflight.
pub(crate) fn target() -> Option<PathBuf> {
    env::current_exe().ok()?.ancestors().nth(3).map(PathBuf::from)
}
