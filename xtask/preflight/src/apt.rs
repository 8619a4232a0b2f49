//! Calls of `apt-get` and `apt-cache`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::program::find;

/// Whether this process may install packages: it runs as root, on a Debian.
pub(crate) fn may_install() -> bool {
    // The owner of a process's files is its effective user.
    let root = fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() == 0);
    root && find("apt-get").is_some()
}

/// Runs `apt-get` with `arguments`; its messages go with ours.
pub(crate) fn get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // Standard output is for results.
    command.stdout(std::io::stderr());
    let status = command.status().context("starting apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed: see its messages above", arguments.join(" "));
    }
    Ok(())
}

/// What `apt-cache` prints with `arguments`.
pub(crate) fn cache(arguments: &[&str]) -> Result<String> {
    let output = Command::new("apt-cache").args(arguments).stdin(Stdio::null()).output();
    let output =
        output.context("starting apt-cache: kernels come from Debian's packages, so this needs Debian")?;
    if !output.status.success() {
        bail!("apt-cache {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
