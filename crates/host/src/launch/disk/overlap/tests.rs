use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::makedev;
use tempfile::TempDir;

use super::*;
use crate::forks::apart;

/// A host of our own: sysfs, device nodes, and mounts.
struct Host {
    directory: TempDir,
    mounts: String,
}

impl Host {
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap(), mounts: String::new() };
        for directory in ["sys/dev/block", "sys/block", "dev"] {
            fs::create_dir_all(host.path(directory)).unwrap();
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A device with number 9:`minor` below `parent`, or a whole one.
    fn device(&self, parent: Option<&str>, name: &str, minor: u32) -> PathBuf {
        let path = match parent {
            Some(parent) => self.path("sys/devices").join(parent).join(name),
            None => self.path("sys/devices").join(name),
        };
        for part in ["holders", "slaves"] {
            fs::create_dir_all(path.join(part)).unwrap();
        }
        fs::write(path.join("dev"), format!("9:{minor}\n")).unwrap();
        fs::write(path.join("ro"), "0\n").unwrap();
        symlink(&path, self.path("sys/dev/block").join(format!("9:{minor}"))).unwrap();
        match parent {
            Some(_) => fs::write(path.join("partition"), "1\n").unwrap(),
            None => symlink(&path, self.path("sys/block").join(name)).unwrap(),
        }
        fs::write(self.path("dev").join(name), "node").unwrap();
        path
    }

    fn loop_device(&self, name: &str, minor: u32, backing: &Path) -> PathBuf {
        let path = self.device(None, name, minor);
        fs::create_dir(path.join("loop")).unwrap();
        fs::write(path.join("loop/backing_file"), format!("{}\n", backing.display())).unwrap();
        path
    }

    /// `upper` is built on `lower`.
    fn build(&self, upper: &Path, lower: &Path) {
        symlink(upper, lower.join("holders").join(upper.file_name().unwrap())).unwrap();
        symlink(lower, upper.join("slaves").join(lower.file_name().unwrap())).unwrap();
    }

    fn mount(&mut self, minor: u32, options: &str) {
        self.mounts += &format!("36 35 9:{minor} / /mnt/d{minor} rw - ext4 none {options}\n");
    }

    /// What another VM locks that uses the device of that name.
    fn lock(&self, name: &str, read_only: bool) -> File {
        let file = File::options().read(true).write(true).open(self.path("dev").join(name)).unwrap();
        assert!(locks::take(&file, read_only).unwrap());
        file
    }

    fn find(&self, identity: Identity, read_only: bool) -> Option<String> {
        let sysfs = Sysfs { root: self.path("sys"), nodes: self.path("dev") };
        Overlap { sysfs: &sysfs, mounts: &Mounts::parse(&self.mounts), read_only }.find(identity)
    }

    fn of_device(&self, minor: u32, read_only: bool) -> Option<String> {
        self.find(Identity::Device(makedev(9, minor)), read_only)
    }
}

#[track_caller]
fn says(found: Option<String>, parts: &[&str]) {
    let found = found.expect("another use");
    assert!(parts.iter().all(|part| found.contains(part)), "{found}");
}

#[test]
fn a_file_is_not_used_beside_its_loop_device() {
    let mut host = Host::new();
    let image = host.path("image.raw");
    fs::write(&image, "image").unwrap();
    let identity = Identity::at(&image).unwrap();
    let other = host.path("other.raw");
    fs::write(&other, "image").unwrap();
    host.loop_device("loop0", 0, &other);
    assert_eq!(host.find(identity, false), None);
    let attached = host.loop_device("loop1", 1, &image);
    says(host.find(identity, false), &["attached as", "loop1", "losetup -d"]);
    says(host.find(identity, true), &["losetup -r"]);
    fs::write(attached.join("ro"), "1\n").unwrap();
    assert_eq!(host.find(identity, true), None, "both only read");
    host.mount(1, "ro");
    says(host.find(identity, false), &["mounted at /mnt/d1", "umount /mnt/d1"]);
}

#[test]
fn a_loop_device_is_not_used_beside_its_file() {
    let _apart = apart();
    let host = Host::new();
    let image = host.path("dev/image");
    fs::write(&image, "image").unwrap();
    host.loop_device("loop0", 0, &image);
    host.device(Some("loop0"), "loop0p1", 1);
    for read_only in [false, true] {
        let lock = host.lock("image", read_only);
        for minor in [0, 1] {
            says(host.of_device(minor, false), &["loop device of", "image, which is in use: by"]);
            assert_eq!(host.of_device(minor, true).is_some(), !read_only);
        }
        drop(lock);
        assert_eq!((host.of_device(0, false), host.of_device(1, false)), (None, None));
    }
}

#[test]
fn a_disk_and_its_partitions_are_one_and_partitions_are_apart() {
    let _apart = apart();
    let mut host = Host::new();
    host.device(None, "sda", 0);
    host.device(Some("sda"), "sda1", 1);
    host.device(Some("sda"), "sda2", 2);
    for minor in 0..3 {
        assert_eq!(host.of_device(minor, false), None);
    }
    let writer = host.lock("sda1", false);
    says(host.of_device(0, true), &["its partition", "sda1 is in use"]);
    assert_eq!(host.of_device(2, false), None);
    drop(writer);
    let reader = host.lock("sda", true);
    says(host.of_device(1, false), &["a part of", "sda, which is in use"]);
    assert_eq!(host.of_device(1, true), None);
    drop(reader);
    host.mount(2, "rw,discard");
    says(host.of_device(0, true), &["sda2 is in use: it is mounted at /mnt/d2"]);
    says(host.of_device(2, true), &["mounted at /mnt/d2", "unmount"]);
    assert_eq!(host.of_device(1, false), None);
}

#[test]
fn a_device_and_what_is_built_on_it_are_one() {
    let _apart = apart();
    let host = Host::new();
    let disk = host.device(None, "sda", 0);
    let partition = host.device(Some("sda"), "sda1", 1);
    let mapped = host.device(None, "dm-0", 2);
    host.build(&mapped, &partition);
    says(host.of_device(1, true), &["dm-0 is built on it"]);
    says(host.of_device(0, false), &["sda1 is in use", "dm-0 is built on it"]);
    assert_eq!(host.of_device(2, false), None);
    let lock = host.lock("sda", false);
    says(host.of_device(2, true), &["a part of", "sda, which is in use"]);
    drop(lock);
    fs::write(mapped.join("ro"), "1\n").unwrap();
    assert_eq!((host.of_device(1, true), host.of_device(0, true)), (None, None), "all only read");
    assert!(disk.exists());
}
