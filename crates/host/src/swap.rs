//! Swap space: where VMs' pages go that machine memory cannot hold.
//!
//! Each VM has a file of its own, without a name, of its size less its reservation, allocated when it starts: swapping out can
//! then never fail for lack of space. Only the VM's process has it open. It is gone with that process, however that ends, and
//! whatever the daemon does meanwhile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plimsoll_units::{Bytes, Pages};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Where swap space is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwapSite {
    /// The directory, which there is.
    pub(crate) directory: PathBuf,
    /// VMs encrypt what they write, each with a key that only its process has.
    pub(crate) encrypt: bool,
}

impl SwapSite {
    /// A VM's swap space of that many pages.
    ///
    /// # Errors
    /// What is short and by how much, or what the directory's file system cannot do; and what to do about it.
    pub(crate) fn allocate(&self, pages: Pages) -> anyhow::Result<File> {
        let directory = self.directory.display();
        let file = self.open().with_context(|| format!("swap space: cannot make a file in {directory}"))?;
        let size = pages.bytes();
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size.0)) {
            Ok(()) => Ok(file),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                let free = available(&self.directory).unwrap_or(Bytes::ZERO);
                bail!(
                    "swap space: it needs {size} (size - reservation) in {directory}, where {free} is free, {} too little: raise its \
                     reservation, lower its size, stop a VM, make room there, or name another swap_directory",
                    size.saturating_sub(free)
                )
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => bail!(
                "swap space: the file system of {directory} cannot set space aside (fallocate): name a swap_directory on ext4, XFS or \
                 another that can"
            ),
            Err(e) => Err(e).with_context(|| format!("swap space: cannot allocate {size} in {directory}")),
        }
    }

    /// A file that has never had a name, and cannot be given one. Past the page cache where the file system allows that: what is
    /// swapped out to save memory must not lie in memory again.
    fn open(&self) -> std::io::Result<File> {
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .mode(0o600)
                .custom_flags(libc::O_TMPFILE | libc::O_EXCL | flags)
                .open(&self.directory)
        };
        open(libc::O_DIRECT).or_else(|_| open(0))
    }
}

/// What `directory`'s file system has free for who is not root.
pub(crate) fn available(directory: &Path) -> rustix::io::Result<Bytes> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(Bytes(stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    use super::*;

    fn site(directory: &Path) -> SwapSite {
        SwapSite { directory: directory.to_owned(), encrypt: false }
    }

    #[test]
    fn a_vms_swap_space_is_allocated_private_and_without_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = site(directory.path()).allocate(Pages(256)).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks() * 512 >= 1 << 20), (1 << 20, true));
        assert_eq!((metadata.nlink(), metadata.permissions().mode() & 0o777), (0, 0o600));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        // As far as O_DIRECT is on, this must be aligned.
        if rustix::fs::fcntl_getfl(&file).unwrap().contains(rustix::fs::OFlags::DIRECT) {
            assert!(file.write_at(&[0; 3], 1).is_err());
        }
    }

    #[test]
    fn what_is_short_is_told_with_its_amount() {
        let directory = tempfile::tempdir().unwrap();
        let error = site(directory.path()).allocate(Pages(1 << 38)).unwrap_err().to_string();
        assert!(error.contains("it needs 1024") && error.contains("too little"), "{error}");
        assert!(error.contains("swap_directory") && error.lines().count() == 1, "{error}");
        let error = format!("{:#}", site(Path::new("/nowhere")).allocate(Pages(1)).unwrap_err());
        assert!(error.starts_with("swap space: cannot make a file in /nowhere: "), "{error}");
    }
}
