//! Disk space: what directories still need, and what their file systems have.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Size;
use crate::sys::statvfs;

/// What a directory needs even when all is there: builds replace files.
const FLOOR: Size = Size::mib(256);

/// A directory, and how much is going to be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What it holds, for people.
    pub(crate) what: &'static str,
    /// The directory, which may not exist yet.
    pub(crate) path: PathBuf,
    /// Its size after the command.
    pub(crate) size: Size,
}

/// Directories of one file system that need more than it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// The directories.
    pub(crate) places: Vec<Place>,
    /// What they need together.
    pub(crate) needed: Size,
    /// What the file system has.
    pub(crate) free: Size,
}

/// The file system of a directory.
#[derive(Clone, Copy, Debug)]
struct FileSystem {
    device: u64,
    free: Size,
}

/// The shortages of `places`.
pub(crate) fn shortages(places: &[Place]) -> Vec<Shortage> {
    let facts = places.iter().filter_map(|place| {
        // A file system that does not tell is not judged.
        Some((place.clone(), missing(place.size, used(&place.path, place.size)), file_system(&place.path)?))
    });
    judge(facts.collect())
}

/// Adds up needs by file system, and keeps those that are too great.
fn judge(facts: Vec<(Place, Size, FileSystem)>) -> Vec<Shortage> {
    let mut systems: Vec<(u64, Shortage)> = Vec::new();
    for (place, needed, system) in facts {
        match systems.iter_mut().find(|(device, _)| *device == system.device) {
            Some((_, sum)) => {
                sum.places.push(place);
                sum.needed = sum.needed + needed;
            }
            None => {
                systems.push((system.device, Shortage { places: vec![place], needed, free: system.free }));
            }
        }
    }
    systems.into_iter().map(|(_, sum)| sum).filter(|sum| sum.needed > sum.free).collect()
}

/// What a directory that is going to have `size` and has `used` still needs.
fn missing(size: Size, used: Size) -> Size {
    Size(size.0.saturating_sub(used.0)).max(FLOOR)
}

/// The file system that `path` is or will be in.
fn file_system(path: &Path) -> Option<FileSystem> {
    let there = path.ancestors().find(|ancestor| ancestor.is_dir())?;
    let free = Size(statvfs::free(there).ok()?);
    Some(FileSystem { device: fs::metadata(there).ok()?.dev(), free })
}

/// What the files below `path` take, counted until that is `enough`.
fn used(path: &Path, enough: Size) -> Size {
    let mut sum = 0;
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        // What vanishes while it is counted counts nothing.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            sum += facts.blocks() * 512;
            if facts.is_dir() {
                directories.push(entry.path());
            }
        }
        if sum >= enough.0 {
            break;
        }
    }
    Size(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(what: &'static str) -> Place {
        Place { what, path: format!("/{what}").into(), size: Size::gib(1) }
    }

    #[test]
    fn what_is_there_already_is_not_needed_again() {
        assert_eq!(missing(Size::gib(4), Size::gib(1)), Size::gib(3));
        assert_eq!(missing(Size::gib(4), Size::gib(9)), FLOOR);
    }

    #[test]
    fn directories_of_one_file_system_need_the_sum() {
        let on = |device, free| FileSystem { device, free };
        let facts = |free| {
            vec![
                (place("cache"), Size::gib(2), on(1, free)),
                (place("other"), Size::gib(2), on(2, Size::gib(9))),
                (place("target"), Size::gib(3), on(1, free)),
            ]
        };
        assert_eq!(judge(facts(Size::gib(5))), []);
        let wanted = Shortage {
            places: vec![place("cache"), place("target")],
            needed: Size::gib(5),
            free: Size::gib(4),
        };
        assert_eq!(judge(facts(Size::gib(4))), [wanted]);
    }

    #[test]
    fn files_below_a_directory_are_counted_and_a_missing_one_is_empty() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(used(&here, Size::gib(1)) > Size(0));
        assert_eq!(used(&here.join("no-such-directory"), Size::gib(1)), Size(0));
        assert!(file_system(&here.join("no/such/directory")).is_some());
    }
}
