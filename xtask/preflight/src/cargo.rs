//! Cargo: its components, and its directory of built files.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The components that `cargo xtask test` runs: name for rustup, and cargo's command.
pub(crate) const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "fmt"), ("clippy", "clippy")];

/// What cargo tells a program that it runs about the program's own package. A build script that
/// reads one of these, such as ring's, would run again for each program that starts cargo.
const OF_THIS_PACKAGE: &[&str] =
    &["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];

/// A command of the cargo that started this program. It builds what a shell's cargo would, and
/// finds that built already.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(program());
    env::vars_os().map(|(name, _)| name).filter(is_of_this_package).for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// The cargo that started this program.
#[must_use]
pub fn program() -> PathBuf {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

fn is_of_this_package(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    OF_THIS_PACKAGE.iter().any(|beginning| name.starts_with(beginning))
}

/// Those of [`COMPONENTS`] that are not installed.
pub(crate) fn missing_components() -> Vec<&'static str> {
    let absent = |component: &str| {
        let mut cargo = command();
        // rustup has a program for each, which fails where the component is not installed.
        cargo.args([component, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        !cargo.status().is_ok_and(|status| status.success())
    };
    COMPONENTS.iter().filter(|(_, command)| absent(command)).map(|(name, _)| *name).collect()
}

/// The directory of built files, which this program is in: DIRECTORY/TARGET/release/preflight.
pub(crate) fn target() -> Option<PathBuf> {
    env::current_exe().ok()?.ancestors().nth(3).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_nothing_of_the_package_that_starts_it() {
        // Cargo has told this test of its package.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let command = command();
        let removed: Vec<_> =
            command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(removed.iter().any(|name| *name == "CARGO_MANIFEST_DIR"), "{removed:?}");
        assert!(removed.iter().any(|name| *name == "CARGO_PKG_VERSION_MAJOR"), "{removed:?}");
        // What its user has told it stays.
        for name in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "PATH"] {
            assert!(!is_of_this_package(&name.into()), "{name}");
        }
    }
}
