//! The host's block devices, as sysfs describes them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Dev, major, makedev, minor};

/// Where sysfs and the device nodes are.
#[derive(Debug)]
pub(super) struct Sysfs {
    pub(super) root: PathBuf,
    pub(super) nodes: PathBuf,
}

/// A block device: a whole one or a partition.
#[derive(Debug)]
pub(super) struct Device {
    /// Its directory in sysfs.
    path: PathBuf,
}

impl Sysfs {
    /// Those of this host.
    pub(super) fn host() -> Self {
        Self { root: "/sys".into(), nodes: "/dev".into() }
    }

    /// The device of that number, if sysfs knows it.
    pub(super) fn device(&self, number: Dev) -> Option<Device> {
        Device::at(&self.root.join(format!("dev/block/{}:{}", major(number), minor(number))))
    }

    /// The loop devices that are attached to a file.
    pub(super) fn loops(&self) -> Vec<Device> {
        let mut loops = directories(&self.root.join("block"));
        loops.retain(|device| device.backing().is_some());
        loops
    }

    /// A device's node.
    pub(super) fn node(&self, device: &Device) -> PathBuf {
        self.nodes.join(device.name())
    }
}

impl Device {
    fn at(path: &Path) -> Option<Self> {
        fs::canonicalize(path).ok().map(|path| Self { path })
    }

    /// Its name, which is also that of its node.
    fn name(&self) -> String {
        // Sysfs writes '!' for '/' in names.
        self.path.file_name().unwrap_or_default().to_string_lossy().replace('!', "/")
    }

    /// Its number.
    pub(super) fn number(&self) -> Option<Dev> {
        let text = self.read("dev")?;
        let (major, minor) = text.split_once(':')?;
        Some(makedev(major.parse().ok()?, minor.parse().ok()?))
    }

    /// Whether nobody can write through it.
    pub(super) fn is_read_only(&self) -> bool {
        self.read("ro").is_some_and(|text| text == "1")
    }

    /// The devices that are built on it: device mapper, RAID.
    pub(super) fn holders(&self) -> Vec<Self> {
        directories(&self.path.join("holders"))
    }

    /// The devices that it is built on.
    pub(super) fn slaves(&self) -> Vec<Self> {
        directories(&self.path.join("slaves"))
    }

    /// Its partitions.
    pub(super) fn partitions(&self) -> Vec<Self> {
        let mut partitions = directories(&self.path);
        partitions.retain(|device| device.whole().is_some() && device.path.parent() == Some(&self.path));
        partitions
    }

    /// The device that it is a partition of.
    pub(super) fn whole(&self) -> Option<Self> {
        self.read("partition")?;
        self.path.parent().map(|path| Self { path: path.to_owned() })
    }

    /// The file that it is a loop device of.
    pub(super) fn backing(&self) -> Option<PathBuf> {
        self.read("loop/backing_file").map(PathBuf::from)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok().map(|text| text.trim_end_matches('\n').to_owned())
    }
}

fn directories(path: &Path) -> Vec<Device> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Device::at(&path))
        .collect()
}
