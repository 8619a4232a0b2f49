//! Installs, upgrades, removes and purges the package in a Debian of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{self, step};
use plimsoll_lab::{command, debian};
use plimsoll_units::Bytes;
use preflight::{packages, program};

/// Runs in the new root. Nothing is started there: no systemd runs.
const SCRIPT: &str = include_str!("check.sh");

/// Makes two revisions of the package of the programs as they are, and checks that what they leave
/// behind is what Debian's packages may.
///
/// # Errors
/// Not root, or what did not hold.
pub fn check() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a package is installed by root only: run this as root");
    packages::ensure(packages::DISK)?;
    workspace::build_for_models()?;
    let scratch = tempfile::tempdir().context("making a directory")?;
    let root = scratch.path().join("root");
    unpack(&root)?;
    for revision in [1, 2] {
        let package = super::make(scratch.path(), revision)?;
        fs::copy(&package, root.join(format!("{revision}.deb"))).context("copying the package")?;
    }
    step("installing, upgrading, removing and purging the package");
    fs::write(root.join("check.sh"), SCRIPT)?;
    // Mounts and processes of the script's own end with it.
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child", "chroot"]);
    command::run(unshare.arg(&root).args(["/bin/sh", "-e", "/check.sh"])).context("the package does not hold")
}

/// The files of a small Debian, with systemd, in `root`.
fn unpack(root: &Path) -> Result<()> {
    let disk = debian::build(Version::V6_1, Bytes::mib(1024))?;
    step("unpacking a Debian");
    fs::create_dir(root)?;
    let debugfs = program::find("debugfs").context("debugfs not found: install e2fsprogs")?;
    let dump = format!("rdump / {}", root.display());
    command::run(Command::new(debugfs).args(["-R", &dump]).arg(disk.image()))?;
    ensure!(root.join("usr/bin/dpkg").is_file(), "the Debian disk has not been unpacked");
    Ok(())
}
