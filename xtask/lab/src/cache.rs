//! The directory of what is downloaded or built once, and the age of what is in it.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The cache; see [`preflight::cache`].
///
/// # Errors
/// It cannot be made.
pub fn directory() -> Result<PathBuf> {
    preflight::cache::directory()
}

/// A key for things built from `parts`: changes when any of them does. Only for the cache, not
/// against an adversary.
pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = DefaultHasher::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    format!("{:016x}", hasher.finish())
}

/// How long a cached image is kept after its last use. Every build makes new ones of tens of
/// megabytes; a shorter time would take them from another `xtask` that is about to boot.
const KEPT: Duration = Duration::from_secs(3600);

/// Removes what is in the cache directory `home` and was not [`used`] of late.
pub(crate) fn evict(home: &Path) -> Result<()> {
    for entry in fs::read_dir(home).with_context(|| format!("reading {}", home.display()))? {
        let entry = entry?;
        let idle = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if idle < KEPT {
            continue;
        }
        // Another xtask may be removing the same; the second one has nothing to do.
        fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())).ok();
    }
    Ok(())
}

/// Keeps `made` as `directory`, whole or not at all. `file` is in it once it is complete.
///
/// # Errors
/// It cannot be moved, and no other process has put the same there.
pub fn keep(made: TempDir, directory: &Path, file: &str) -> Result<()> {
    let made = made.keep();
    // Another xtask may have made the same in the meantime: its copy is as good.
    if let Err(error) = fs::rename(&made, directory) {
        fs::remove_dir_all(&made)?;
        ensure!(directory.join(file).is_file(), "keeping {}: {error}", directory.display());
    }
    Ok(())
}

/// Marks the cached file or directory at `path` as in use.
pub fn used(path: &Path) {
    // Only the time of its eviction depends on this.
    fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now())).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_whole_and_a_second_copy_of_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let made = |content: &str| {
            let made = tempfile::tempdir_in(home.path()).unwrap();
            fs::write(made.path().join("disk"), content).unwrap();
            made
        };
        let place = home.path().join("image");
        keep(made("first"), &place, "disk").unwrap();
        keep(made("second"), &place, "disk").unwrap();
        assert_eq!(fs::read_to_string(place.join("disk")).unwrap(), "first");
        // What stands there is not what was made.
        assert!(keep(made("third"), &place, "other").is_err());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "copies are left");
    }

    #[test]
    fn images_go_an_hour_after_their_last_use() {
        let home = tempfile::tempdir().unwrap();
        let (old, used_again) = (home.path().join("old"), home.path().join("used"));
        for path in [&old, &used_again] {
            fs::write(path, "").unwrap();
            fs::File::open(path).unwrap().set_modified(SystemTime::now() - KEPT).unwrap();
        }
        used(&used_again);
        evict(home.path()).unwrap();
        assert!(!old.exists() && used_again.exists());
    }
}
