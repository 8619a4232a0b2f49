//! Guests that do the work of a Debian system: the tiny image, and a read-only disk with programs of Debian's.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plimsoll_lab::cache;
use plimsoll_lab::command::run;
use plimsoll_lab::guest;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{Programs, step};
use plimsoll_units::Bytes;
use preflight::{deb, packages};
use serde::{Deserialize, Serialize};

use super::dbench_disk::initrd;

/// The disk's size: the files take some 80 MB.
const DISK: Bytes = Bytes::mib(160);

/// What the guest works on.
const LOAD: &str = include_str!("load.pl");

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Counts words of texts.
    Words,
    /// Sorts numbers, which are others in each guest.
    Numbers,
    /// Looks for patterns in texts.
    Search,
    /// Each by turns.
    All,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Words => "words",
            Self::Numbers => "numbers",
            Self::Search => "search",
            Self::All => "all",
        })
    }
}

/// A directory with `vmlinuz` and `initrd` of each version of Debian's kernel, and the `disk` for all of them, from the cache where
/// its inputs are the same.
pub(crate) fn build(programs: &Programs) -> Result<PathBuf> {
    packages::ensure(packages::LAB)?;
    let images = Version::ALL.map(|version| guest::build(version, programs));
    let images = images.into_iter().collect::<Result<Vec<_>>>()?;
    let names: Vec<_> = images.iter().map(|image| image.directory.display().to_string()).collect();
    let inputs = format!("{:?} {LOAD} {} {names:?}", deb::DEBIAN, DISK.0);
    let home = cache::directory()?.join("guests");
    let directory = home.join(format!("debian-{}", cache::key([inputs.as_bytes()])));
    if directory.join("disk").is_file() {
        cache::used(&directory);
        return Ok(directory);
    }
    step("building a disk with programs of Debian's");
    let scratch = tempfile::tempdir_in(&home)?;
    let root = scratch.path().join("root");
    for package in deb::DEBIAN {
        run(Command::new("dpkg-deb").arg("-x").arg(deb::file(package)?).arg(&root))?;
    }
    fs::create_dir_all(root.join("tmp"))?;
    fs::write(root.join("load.pl"), LOAD)?;
    let disk = scratch.path().join("disk");
    File::create(&disk)?.set_len(DISK.0)?;
    let mke2fs = packages::find("mke2fs").context("mke2fs not found: install e2fsprogs")?;
    // Guests only read it: a journal would be of no use.
    run(Command::new(mke2fs)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-d"])
        .arg(&root)
        .arg(&disk))?;
    fs::remove_dir_all(&root)?;
    for image in &images {
        let [kernel, initial, _] = files(scratch.path(), image.version);
        fs::copy(image.kernel(), kernel)?;
        fs::write(initial, initrd(image)?)?;
    }
    cache::keep(scratch, &directory, "disk")?;
    Ok(directory)
}

/// Kernel, initial ram disk and disk of [`build`] in `directory`, for guests of `version`.
pub(crate) fn files(directory: &Path, version: Version) -> [PathBuf; 3] {
    [format!("vmlinuz-{version}"), format!("initrd-{version}"), "disk".to_owned()]
        .map(|name| directory.join(name))
}
