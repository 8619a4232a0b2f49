//! Whether a disk's data goes through the host's page cache.

use std::fs::File;

use anyhow::{Context, bail};
use plimsoll_machine::medium::file_system_in_memory;
use plimsoll_protocol::definition::{Cache, Disk};
use plimsoll_sys::direct;
use rustix::fs::{Advice, fadvise};

/// Switches the page cache off for `disk`, of `len` bytes, if its definition or the default says
/// so. Where a disk that is written goes through the cache, the cache lets go of it first: see
/// [`drop_pages`]. Returns what to tell the operator where the default is not possible.
///
/// # Errors
/// The definition says so, and it is not possible: why, and what to do. Or what was written to the
/// disk before cannot be made durable.
pub(super) fn apply(disk: &Disk, file: &File, len: u64) -> anyhow::Result<Option<String>> {
    let remark = match disk.cache() {
        Cache::Host => None,
        Cache::None => match switch_off(file, len) {
            Ok(()) => return Ok(None),
            Err(why) if disk.cache.is_some() => {
                bail!("cache = \"none\" is not possible: {why}; write cache = \"host\", or move the disk")
            }
            Err(why) => Some(format!(
                "disk {} goes through the host's page cache: {why} (cache = \"host\" accepts that)",
                disk.path.display()
            )),
        },
    };
    if !disk.read_only {
        drop_pages(file)?;
    }
    Ok(remark)
}

fn switch_off(file: &File, len: u64) -> Result<(), String> {
    if let Some(name) = file_system_in_memory(file) {
        return Err(format!("it is in memory ({name})"));
    }
    let alignment = direct::switch_on(file).map_err(|e| format!("direct I/O does not work on it ({e})"))?;
    if alignment.block_fits(len) {
        return Ok(());
    }
    direct::switch_off(file).map_err(|e| e.to_string())?;
    Err(format!("its {len} bytes are no multiple of {}, the blocks of its storage", alignment.block))
}

/// Has what the page cache holds of `file` written and dropped, so that what is read next is what
/// storage has. After a write-back that failed the two may differ: the kernel tells of it once, and
/// keeps the pages as if they were written. It waits for storage.
///
/// # Errors
/// What was written to it cannot be made durable.
fn drop_pages(file: &File) -> anyhow::Result<()> {
    file.sync_data().context(
        "what was written to it before cannot be made durable: look at the host's log (dmesg) and at what it lies on, \
         and start its VM again when that is mended",
    )?;
    // All of it.
    fadvise(file, 0, None, Advice::DontNeed).context("the page cache does not let go of it")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::*;

    fn disk(path: &Path, cache: Option<Cache>, read_only: bool) -> Disk {
        Disk { cache, ..super::super::tests::disk(path, read_only) }
    }

    #[test]
    fn writable_disks_pass_the_cache_by_and_read_only_ones_share_it() {
        let image = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        image.as_file().set_len(1 << 16).unwrap();
        let is_direct = |cache, read_only| {
            let file = File::options().read(true).write(true).open(image.path()).unwrap();
            let remark = apply(&disk(image.path(), cache, read_only), &file, 1 << 16).unwrap();
            assert_eq!(remark, None);
            direct::Alignment::of(&file).unwrap().is_some()
        };
        if direct::switch_on(&image.reopen().unwrap()).is_err() {
            eprintln!("SKIPPED: /var/tmp is on a file system without direct I/O");
            return;
        }
        assert!(is_direct(None, false) && is_direct(Some(Cache::None), true));
        assert!(!is_direct(None, true) && !is_direct(Some(Cache::Host), false));
    }

    #[test]
    fn a_disk_in_memory_is_told_and_refused_where_no_cache_was_asked_for() {
        let image = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        image.as_file().set_len(1 << 16).unwrap();
        let apply = |cache| apply(&disk(image.path(), cache, false), image.as_file(), 1 << 16);
        let remark = apply(None).unwrap().unwrap();
        assert!(remark.contains("in memory (tmpfs)"), "{remark}");
        let error = apply(Some(Cache::None)).unwrap_err().to_string();
        assert!(error.contains("in memory (tmpfs)") && error.contains("cache = \"host\""), "{error}");
        assert_eq!(apply(Some(Cache::Host)).unwrap(), None);
        image.as_file().write_at(&[1; 3], 1).unwrap();
    }

    #[test]
    fn a_length_that_no_block_divides_is_left_to_the_cache() {
        let image = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        image.as_file().set_len((1 << 16) + 1).unwrap();
        let why = switch_off(image.as_file(), (1 << 16) + 1).unwrap_err();
        assert!(why.contains("no multiple") || why.contains("does not work"), "{why}");
        image.as_file().write_at(&[1; 3], 1).unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_made_durable_is_refused() {
        // The kernel syncs no such device.
        let error = drop_pages(&File::open("/dev/null").unwrap()).unwrap_err();
        assert!(error.to_string().contains("cannot be made durable"), "{error:#}");
    }
}
