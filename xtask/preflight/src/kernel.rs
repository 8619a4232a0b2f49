//! Debian's cloud kernels: which package has them, and its file.
//!
//! A kernel stays the same as long as the cache has it, unpacked or as a package's file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::{apt, cache, deb, lists};

/// Which of Debian 12's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The stock kernel of Debian 12: the oldest that Plimsoll supports.
    V6_1,
    /// The newest that Debian 12 gets through its updates, and the stock kernel of Debian 13.
    V6_12,
}

impl Version {
    /// Both, oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|version| version.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no kernel of the lab: choose 6.1 or 6.12"))
    }
}

/// The directory of unpacked kernels, each in a directory named after its package.
///
/// # Errors
/// The cache cannot be written.
pub fn home() -> Result<PathBuf> {
    let path = cache::directory()?.join("kernels");
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// The release of the kernel unpacked at `root`, where all of it is there.
pub fn unpacked(root: &Path) -> Option<String> {
    let entry = fs::read_dir(root.join("lib/modules")).ok()?.next()?.ok()?;
    let release = entry.file_name().to_string_lossy().into_owned();
    let whole =
        root.join(format!("boot/vmlinuz-{release}")).is_file() && entry.path().join("modules.dep").is_file();
    whole.then_some(release)
}

/// The package with the kernel of `version`: that of the cache, else the newest that apt knows. Its
/// file is downloaded where the cache does not have the kernel.
///
/// # Errors
/// apt knows no such package, or it cannot be downloaded.
pub fn fetch(version: Version) -> Result<String> {
    if let Some(package) = cached(version)? {
        return Ok(package);
    }
    // Old lists name packages that the archive has removed: new lists may give another name.
    let package = lists::with_fresh(|| {
        let package = newest(version)?;
        deb::cached(&package)?.map_or_else(|| deb::download(&package), Ok)?;
        Ok(package)
    })?;
    keep(version, &package)?;
    Ok(package)
}

/// The package of `version` whose kernel the cache has.
pub(crate) fn cached(version: Version) -> Result<Option<String>> {
    let Ok(package) = fs::read_to_string(note(version)?) else { return Ok(None) };
    let there = unpacked(&home()?.join(&package)).is_some() || deb::cached(&package)?.is_some();
    Ok(there.then_some(package))
}

/// The newest package of `version` that the archive has, where that is not `known`.
///
/// # Errors
/// apt knows none.
pub fn newer(version: Version, known: &str) -> Result<Option<String>> {
    lists::refresh();
    let package = newest(version)?;
    if package == known {
        return Ok(None);
    }
    keep(version, &package)?;
    Ok(Some(package))
}

/// Makes the next [`fetch`] ask Debian for the newest package.
pub(crate) fn forget(version: Version) -> Result<()> {
    let note = note(version)?;
    match fs::remove_file(&note) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", note.display()))
        }
        _ => Ok(()),
    }
}

/// The file that holds the name of the package of `version`.
fn note(version: Version) -> Result<PathBuf> {
    Ok(home()?.join(format!("{version}.package")))
}

fn keep(version: Version, package: &str) -> Result<()> {
    let note = note(version)?;
    fs::write(&note, package).with_context(|| format!("writing {}", note.display()))
}

/// The package of the newest kernel of `version` that apt knows.
pub(crate) fn newest(version: Version) -> Result<String> {
    let (meta, pattern) = match version {
        Version::V6_1 => ("linux-image-cloud-amd64", r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$"),
        Version::V6_12 => ("linux-image-6.12-cloud-amd64", r"^linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64$"),
    };
    // The metapackage knows best. Lists without it (those of a newer Debian) may have the kernel.
    let depends = apt::cache(&["depends", meta]).unwrap_or_default();
    if let Some(package) = dependency(&depends, version) {
        return Ok(package.to_owned());
    }
    let found = apt::cache(&["search", "--names-only", pattern])?;
    greatest(&found).map(str::to_owned).with_context(|| {
        format!(
            "apt knows no {version} cloud kernel ({meta}): \
             apt's sources need Debian 12 with its security updates"
        )
    })
}

/// The kernel of `version` in what `apt-cache depends` says of its metapackage.
fn dependency(depends: &str, version: Version) -> Option<&str> {
    let prefix = format!("linux-image-{version}.");
    let mut named = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.find(|package| package.starts_with(&prefix))
}

/// The newest of the packages that `apt-cache search` has found.
fn greatest(found: &str) -> Option<&str> {
    found.lines().filter_map(|line| line.split_whitespace().next()).max_by_key(|name| numbers(name))
}

/// The numbers in a package's name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_kernel() {
        let text = "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(dependency(text, Version::V6_12), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        // A newer Debian's metapackage depends on its own kernel.
        assert_eq!(dependency(text, Version::V6_1), None);
        assert_eq!(dependency("", Version::V6_12), None);
    }

    #[test]
    fn the_newest_package_is_the_one_with_the_greatest_numbers() {
        let text = "linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12.43+deb12-cloud-amd64 - Linux 6.12\n";
        assert_eq!(greatest(text), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(greatest(""), None);
    }
}
