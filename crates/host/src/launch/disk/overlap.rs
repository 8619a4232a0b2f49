//! The same storage by another name: a file and its loop device, a disk and its partitions, a
//! device and what device mapper builds of it.
//!
//! Locks and exclusive opens hold for one name only. So what lies above and below a disk is looked
//! at, as far as sysfs tells. A disk that is only read may overlap with what is only read.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use plimsoll_image::locks;
use plimsoll_machine::users::{self, Identity};
use rustix::fs::Dev;

use super::mounts::Mounts;
use super::sysfs::{Device, Sysfs};

/// How deep devices are built on each other. The kernel allows fewer.
const DEPTH: u32 = 8;

/// Looks for other uses of a disk's storage.
pub(super) struct Overlap<'a> {
    pub(super) sysfs: &'a Sysfs,
    pub(super) mounts: &'a Mounts,
    /// The VM only reads.
    pub(super) read_only: bool,
}

impl Overlap<'_> {
    /// Another use of the disk, which the VM's own would harm or be harmed by: what it is, and what
    /// to do.
    pub(super) fn find(&self, identity: Identity) -> Option<String> {
        let Identity::Device(number) = identity else { return self.loop_of(identity) };
        let device = self.sysfs.device(number);
        let device = device.as_ref();
        self.mounted(number)
            .or_else(|| self.above(identity, device?, DEPTH).or_else(|| self.below(device?, DEPTH)))
    }

    /// Its mount.
    fn mounted(&self, number: Dev) -> Option<String> {
        let at = self.mounts.of(number, self.read_only)?;
        Some(format!("it is mounted at {at}: unmount it first"))
    }

    /// The loop device of a file or of a device.
    fn loop_of(&self, identity: Identity) -> Option<String> {
        let mut loops = self.sysfs.loops().into_iter().filter(|device| self.harms(device));
        let device = loops.find(|device| {
            device.backing().is_some_and(|backing| Identity::at(&backing) == Some(identity))
        })?;
        let node = self.sysfs.node(&device);
        let node = node.display();
        let mounted = device.number().and_then(|number| self.mounts.of(number, false));
        let (mounted, unmount) = mounted.map_or_else(Default::default, |at| {
            (format!(", which is mounted at {at}"), format!("umount {at}, then "))
        });
        let only = if self.read_only { ", or attach it with losetup -r" } else { "" };
        Some(format!("it is attached as {node}{mounted}: {unmount}losetup -d {node}{only}"))
    }

    /// What uses a device through others that are built on it.
    fn above(&self, identity: Identity, device: &Device, depth: u32) -> Option<String> {
        if let Some(text) = self.loop_of(identity) {
            return Some(text);
        }
        if let Some(holder) = device.holders().iter().find(|holder| self.harms(holder)) {
            return Some(format!(
                "{} is built on it: name that one, or remove it first",
                self.sysfs.node(holder).display()
            ));
        }
        device.partitions().iter().filter(|_| depth > 0).find_map(|partition| {
            let number = partition.number()?;
            let used = self.mounted(number).or_else(|| self.locked(&self.sysfs.node(partition)));
            let used = used.or_else(|| self.above(Identity::Device(number), partition, depth - 1))?;
            Some(format!("its partition {} is in use: {used}", self.sysfs.node(partition).display()))
        })
    }

    /// What uses the storage that a device is made of.
    fn below(&self, device: &Device, depth: u32) -> Option<String> {
        if let Some(backing) = device.backing() {
            let used = self.locked(&backing)?;
            return Some(format!("it is a loop device of {}, which is in use: {used}", backing.display()));
        }
        device.whole().iter().chain(&device.slaves()).filter(|_| depth > 0).find_map(|lower| {
            let used = self.locked(&self.sysfs.node(lower));
            if let Some(used) = used {
                return Some(format!(
                    "it is a part of {}, which is in use: {used}",
                    self.sysfs.node(lower).display()
                ));
            }
            self.below(lower, depth - 1)
        })
    }

    /// Names what has locked `path` against this use. Only byte ranges are looked at, and every VM
    /// locks those. To try `flock` is to take it, and another launch would find it.
    fn locked(&self, path: &Path) -> Option<String> {
        // A node that is missing, as in a container, tells nothing.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        let identity = Identity::of(&file.metadata().ok()?);
        let conflicts = locks::conflicts(&file, self.read_only).unwrap_or(false);
        conflicts.then(|| {
            format!("by {}", users::processes(path, identity).unwrap_or_else(|| "another program".to_owned()))
        })
    }

    /// Whether what is done through `device` may harm or be harmed.
    fn harms(&self, device: &Device) -> bool {
        !(self.read_only && device.is_read_only())
    }
}

#[cfg(test)]
mod tests;
