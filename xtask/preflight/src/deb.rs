//! Debian's packages as files in the cache: downloaded, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say::step;
use crate::{cache, lists};

/// What is on the disk of guests that run dbench: the program, and what it is linked with.
pub const DBENCH: &[&str] = &["dbench", "libpopt0", "libc6"];

/// What is on the disk of guests that work: what runs, and files for page caches. Every Debian has
/// packages of these names.
pub const DEBIAN: &[&str] =
    &["libc6", "libcrypt1", "perl-base", "bash", "coreutils", "locales", "vim-runtime"];

/// Prometheus and promtool. They are not linked with anything but the C library.
pub const PROMETHEUS: &[&str] = &["prometheus"];

/// The file of `package` in the cache, downloaded when it is not there.
///
/// # Errors
/// It is not there and cannot be downloaded.
pub fn file(package: &str) -> Result<PathBuf> {
    match cached(package)? {
        Some(file) => Ok(file),
        None => lists::with_fresh(|| download(package)),
    }
}

/// Removes every file: the next use downloads what is newest then.
pub(crate) fn forget() -> Result<()> {
    let home = home()?;
    fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))
}

fn home() -> Result<PathBuf> {
    let path = cache::directory()?.join("debs");
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// The file of `package`, where the cache has it.
pub(crate) fn cached(package: &str) -> Result<Option<PathBuf>> {
    found(&home()?, package)
}

fn found(directory: &Path, package: &str) -> Result<Option<PathBuf>> {
    // What follows the name is the version.
    let prefix = format!("{package}_");
    let files = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files = files.flatten().map(|entry| entry.path());
    Ok(files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))))
}

/// Downloads `package` as apt's lists have it.
pub(crate) fn download(package: &str) -> Result<PathBuf> {
    step(&format!("downloading {package}"));
    let home = home()?;
    // A download that is cut off must not be taken for the file.
    let scratch = home.join(format!(".{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("making {}", scratch.display()))?;
    let downloaded = download_into(&scratch, package).and_then(|file| {
        let place = home.join(file.file_name().context("a file without a name")?);
        fs::rename(&file, &place).with_context(|| format!("moving {} to the cache", file.display()))?;
        Ok(place)
    });
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    downloaded
}

fn download_into(directory: &Path, package: &str) -> Result<PathBuf> {
    let output = Command::new("apt-get")
        .args(["download", "--quiet=2", package])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("starting apt-get")?;
    if !output.status.success() {
        bail!("downloading {package}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    found(directory, package)?.with_context(|| format!("apt-get download left no file of {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_told_from_others_whose_names_begin_alike() {
        let directory = std::env::temp_dir().join(format!("preflight-deb-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("libc6-dev_2.36_amd64.deb"), "").unwrap();
        let before = found(&directory, "libc6").unwrap();
        fs::write(directory.join("libc6_2.36_amd64.deb"), "").unwrap();
        let after = found(&directory, "libc6").unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((before, after), (None, Some(directory.join("libc6_2.36_amd64.deb"))));
    }
}
