//! Where things are: the repository, the cache beside it, and the programs that cargo builds.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

pub(crate) use preflight::say::{note, step};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The directory for what is downloaded or built once; see [`preflight::cache`].
pub(crate) fn cache() -> Result<PathBuf> {
    preflight::cache::directory()
}

/// The programs of this workspace, built for release: name to path.
pub(crate) type Programs = BTreeMap<String, PathBuf>;

/// Builds every program that runs in the lab or in its guests, and adds this one.
pub(crate) fn build() -> Result<Programs> {
    step("building plimsolld, plimsoll-vmm, plimsoll and toucher");
    build_packages(&["plimsoll-host", "plimsoll-vmm", "plimsoll-cli", "toucher"])
}

/// The same without the program that runs in guests' kernels.
pub(crate) fn build_for_models() -> Result<Programs> {
    step("building plimsolld, plimsoll-vmm and plimsoll");
    build_packages(&["plimsoll-host", "plimsoll-vmm", "plimsoll-cli"])
}

fn build_packages(packages: &[&str]) -> Result<Programs> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "--release", "--locked", "--bins"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    packages.iter().for_each(|package| {
        cargo.args(["--package", package]);
    });
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

/// A key for things built from `parts`: changes when any of them does. Only for the cache, not against an adversary.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    format!("{:016x}", hasher.finish())
}

/// How long a cached image that nobody uses is kept. Every build makes new ones of tens of megabytes; a shorter time would
/// take them from another `xtask` that is about to boot.
const KEPT: Duration = Duration::from_secs(3600);

/// Removes what is in the cache directory `home` and was not [`used`] of late.
pub(crate) fn evict(home: &Path) -> Result<()> {
    for entry in fs::read_dir(home).with_context(|| format!("reading {}", home.display()))? {
        let entry = entry?;
        let idle = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if idle < KEPT {
            continue;
        }
        // Another xtask may be removing the same; whoever comes second has nothing to do.
        fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())).ok();
    }
    Ok(())
}

/// Marks the cached file or directory at `path` as in use.
pub(crate) fn used(path: &Path) {
    // Only the time of its eviction depends on this.
    fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now())).ok();
}
