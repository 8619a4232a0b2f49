//! Programs that are copied into a first file system: busybox, and ours.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use preflight::program;

use crate::cpio::Archive;

/// The busybox of this machine, which needs no libraries.
///
/// # Errors
/// It is not installed.
pub(crate) fn busybox() -> Result<PathBuf> {
    program::find("busybox").context("busybox not found: install busybox-static")
}

/// Adds busybox at `bin/busybox` and a link for each of its commands.
pub(crate) fn add_busybox<W: Write>(archive: &mut Archive<W>, busybox: &Path) -> Result<()> {
    archive.copy("bin/busybox", 0o755, busybox)?;
    let output =
        Command::new(busybox).arg("--list").stdin(Stdio::null()).output().context("starting busybox")?;
    ensure!(output.status.success(), "{} --list failed", busybox.display());
    for name in String::from_utf8_lossy(&output.stdout).lines().filter(|name| *name != "busybox") {
        archive.symlink(&format!("bin/{name}"), "busybox")?;
    }
    Ok(())
}

/// The program at `path` without its debugging information, which would only fill the lab's memory.
/// Where there is no `strip` it is taken as it is.
pub(crate) fn stripped(path: &Path) -> Result<Vec<u8>> {
    let whole = || fs::read(path).with_context(|| format!("reading {}", path.display()));
    let Some(strip) = program::find("strip") else { return whole() };
    let scratch = tempfile::NamedTempFile::new()?;
    let status = Command::new(strip).arg("-o").arg(scratch.path()).arg(path).stdin(Stdio::null()).status()?;
    if status.success() { Ok(fs::read(scratch.path())?) } else { whole() }
}
