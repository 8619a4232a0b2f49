//! Debian packages that the lab needs: found, named, or installed where this runs as root.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::step;

/// A program, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The program's name.
    pub(crate) program: &'static str,
    /// The package to install.
    pub(crate) package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What the lab needs.
pub(crate) const LAB: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("busybox", "busybox-static"),
    tool("depmod", "kmod"),
    tool("dpkg-deb", "dpkg"),
    tool("mke2fs", "e2fsprogs"),
];

/// What building a Debian disk needs on top.
pub(crate) const DISK: &[Tool] =
    &[tool("mmdebstrap", "mmdebstrap"), tool("mke2fs", "e2fsprogs"), tool("debugfs", "e2fsprogs")];

/// The path of `program`, in PATH or where Debian keeps administrators' programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Makes sure that `tools` are there. As root on Debian it installs the packages of those that are not, and says so;
/// else it names them.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        bail!("{} not found: install with `apt-get install {list}` as root", programs.join(", "));
    }
    step(&format!("installing Debian packages: {list}"));
    refresh_if_stale()?;
    apt_get(&[&["install", "--yes", "--quiet=2", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing.iter().find(|tool| find(tool.program).is_none()) {
        Some(tool) => bail!("{} is still missing after installing {}", tool.program, tool.package),
        None => Ok(()),
    }
}

/// Fetches apt's lists where there are none, as in a fresh container. Needs root; without it nothing is done.
pub(crate) fn refresh_if_stale() -> Result<()> {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let known = lists.filter(|entry| entry.file_name().to_string_lossy().contains("_Packages")).count();
    if known > 0 || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    step("fetching apt's package lists");
    apt_get(&["update", "--quiet=2"])
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // Standard output is for results; apt's progress goes with ours.
    command.stdout(std::io::stderr());
    let status = command.status().context("starting apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed: see its messages above", arguments.join(" "));
    }
    Ok(())
}

/// The names in the answer of `apt-cache` with `arguments`, one a line.
pub(crate) fn apt_cache(arguments: &[&str]) -> Result<String> {
    let output = Command::new("apt-cache").args(arguments).stdin(Stdio::null()).output();
    let output =
        output.context("starting apt-cache: kernels come from Debian's packages, so this needs Debian")?;
    if !output.status.success() {
        bail!("apt-cache {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Downloads `package` into `directory` and returns the file.
pub(crate) fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let output = Command::new("apt-get")
        .args(["download", "--quiet=2", package])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("starting apt-get")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("downloading {package}: {why} (run `apt-get update` as root if the lists are old)");
    }
    let prefix = format!("{package}_");
    let files = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let is_it =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    files.into_iter().find(is_it).with_context(|| format!("apt-get download left no {prefix}*.deb"))
}
