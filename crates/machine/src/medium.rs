//! Whether a directory is on a disk or in memory.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What statfs(2) calls file systems in memory.
const IN_MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
/// How many devices deep a disk may be built of others. The kernel allows fewer.
const DEPTH: u32 = 8;

/// Returns the name of the memory that the directory or file at `path` is in: a file system in
/// memory, or a compressed disk in memory. Of a block device, what it is itself is looked at.
/// `None`: it is not in memory, as far as the kernel tells.
#[must_use]
pub fn memory_under(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    // The node of a device is in memory, and says nothing of the device.
    let device = if found.file_type().is_block_device() {
        found.rdev()
    } else {
        if let Some(name) = rustix::fs::statfs(path).ok().and_then(|stat| in_memory(&stat)) {
            return Some(name.to_owned());
        }
        found.dev()
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    compressed_memory(Path::new(&format!("/sys/dev/block/{major}:{minor}")), DEPTH)
}

/// Returns the name of the file system in memory that `file` is in. `None`: it is not in memory, or
/// a block device.
#[must_use]
pub fn file_system_in_memory(file: &fs::File) -> Option<&'static str> {
    if file.metadata().ok()?.file_type().is_block_device() {
        return None;
    }
    in_memory(&rustix::fs::fstatfs(file).ok()?)
}

fn in_memory(stat: &rustix::fs::StatFs) -> Option<&'static str> {
    IN_MEMORY.iter().find(|(magic, _)| *magic == stat.f_type).map(|(_, name)| *name)
}

/// Returns the zram device behind the block device at `path` of sysfs: the device itself, the one
/// that it is a part of, or one that it is built on.
fn compressed_memory(path: &Path, depth: u32) -> Option<String> {
    let device = fs::canonicalize(path).ok()?;
    let zram = |name: &OsStr| name.to_str().filter(|name| name.starts_with("zram")).map(str::to_owned);
    if let Some(name) = device.iter().find_map(zram) {
        return Some(name);
    }
    let below = fs::read_dir(device.join("slaves")).ok().filter(|_| depth > 0)?;
    below.flatten().find_map(|slave| compressed_memory(&slave.path(), depth - 1))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn a_file_system_in_memory_is_named() {
        // The kernel has one here wherever tests can run.
        assert_eq!(memory_under(Path::new("/dev/shm")).as_deref(), Some("tmpfs"));
        assert_eq!(memory_under(Path::new("/nowhere")), None);
        let open = |path| fs::File::open(path).unwrap();
        assert_eq!(file_system_in_memory(&open("/dev/shm")), Some("tmpfs"));
        assert_eq!(file_system_in_memory(&open("/proc/self/stat")), None);
    }

    #[test]
    fn a_block_device_is_not_in_memory_because_its_node_is() {
        let is_device = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
        // Loop devices are no compressed memory, whatever the machine has beside them.
        let mut devices = (0..8).map(|number| PathBuf::from(format!("/dev/loop{number}")));
        let Some(device) = devices.find(is_device) else {
            eprintln!("SKIPPED: no loop device here");
            return;
        };
        assert_eq!(memory_under(&device), None);
        let node = rustix::fs::open(&device, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(file_system_in_memory(&node.into()), None);
    }

    #[test]
    fn a_disk_in_compressed_memory_is_found_below_others() {
        let sys = tempfile::tempdir().unwrap();
        let device = |name: &str, below: Option<&str>| {
            let path = sys.path().join("devices/virtual/block").join(name);
            std::fs::create_dir_all(path.join("slaves")).unwrap();
            if let Some(below) = below {
                let target = sys.path().join("devices/virtual/block").join(below);
                std::os::unix::fs::symlink(target, path.join("slaves").join(below)).unwrap();
            }
            path
        };
        let zram = device("zram0", None);
        let disk = device("sda", None);
        let (mapped, plain) = (device("dm-0", Some("zram0")), device("dm-1", Some("sda")));
        let stacked = device("dm-2", Some("dm-0"));
        let find = |path: &Path| compressed_memory(path, DEPTH);
        for path in [&zram, &mapped, &stacked] {
            assert_eq!(find(path).as_deref(), Some("zram0"), "{}", path.display());
        }
        assert_eq!((find(&disk), find(&plain)), (None, None));
    }
}
