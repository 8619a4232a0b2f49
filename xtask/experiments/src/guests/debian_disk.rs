//! Guests that do the work of a Debian system: the tiny image, and a read-only disk with programs
//! of Debian's.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use plimsoll_lab::cache;
use plimsoll_lab::guest;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{Programs, step};
use plimsoll_units::Bytes;
use preflight::{deb, packages};
use serde::{Deserialize, Serialize};

use super::disk;

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

/// A directory with `vmlinuz` and `initrd` of each version of Debian's kernel, and the `disk` for
/// all of them, from the cache where its inputs are the same.
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
    disk::unpack(deb::DEBIAN, &root)?;
    fs::create_dir_all(root.join("tmp"))?;
    fs::write(root.join("load.pl"), LOAD)?;
    // Guests only read it: a journal would be of no use.
    let options = ["-O", "^has_journal", "-E", "lazy_itable_init=0"];
    disk::move_into(&root, &scratch.path().join("disk"), DISK, &options)?;
    for image in &images {
        let [kernel, initial, _] = files(scratch.path(), image.version);
        fs::copy(image.kernel(), kernel)?;
        fs::write(initial, disk::initrd(image)?)?;
    }
    cache::keep(scratch, &directory, "disk")?;
    Ok(directory)
}

/// Kernel, initial ram disk and disk of [`build`] in `directory`, for guests of `version`.
pub(crate) fn files(directory: &Path, version: Version) -> [PathBuf; 3] {
    [format!("vmlinuz-{version}"), format!("initrd-{version}"), "disk".to_owned()]
        .map(|name| directory.join(name))
}
