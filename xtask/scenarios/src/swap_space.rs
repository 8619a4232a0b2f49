//! Where VMs of a stage swap to, and what fate may do to that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plimsoll_operate::in_lab;
use plimsoll_units::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// A directory for VMs' swap files. In the lab it is a file system of its own, so that all that is
/// free in it is known.
pub(crate) struct SwapSpace {
    directory: TempDir,
    mounted: bool,
}

impl SwapSpace {
    /// Room for `size`.
    pub(crate) fn new(size: Bytes) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("plimsoll-swap-").tempdir()?;
        let mounted = in_lab();
        if mounted {
            let options = std::ffi::CString::new(format!("size={}", size.0))?;
            rustix::mount::mount("swap", directory.path(), "tmpfs", MountFlags::empty(), options.as_c_str())
                .context("mounting a file system to swap to")?;
        }
        Ok(Self { directory, mounted })
    }

    /// The daemon's configuration for it.
    pub(crate) fn setting(&self) -> String {
        let directory = self.directory.path().display().to_string();
        format!("swap_directory = {directory:?}\nswap.allow_memory = {}\n", self.mounted)
    }

    /// What is free in it; `None` where others use the same file system.
    pub(crate) fn free(&self) -> Result<Option<Bytes>> {
        let free =
            || rustix::fs::statvfs(self.directory.path()).map(|stat| Bytes(stat.f_bavail * stat.f_frsize));
        self.mounted.then(free).transpose().context("asking what is free to swap to")
    }

    /// Takes all that is free in it. Only where it is a file system of its own.
    pub(crate) fn fill(&self) -> Result<()> {
        let free = self.free()?.context("a file system that others use is not filled")?;
        let file = File::create(self.directory.path().join("filler"))?;
        if free > Bytes::ZERO {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, free.0)
                .context("filling the swap space")?;
        }
        ensure!(self.free()? == Some(Bytes::ZERO), "{:?} of the swap space are free", self.free()?);
        Ok(())
    }

    /// The swap file of the VMM with that process id.
    pub(crate) fn file_of(&self, pid: u32) -> Result<SwapFile> {
        SwapFile::of(pid, self.directory.path())
    }
}

impl Drop for SwapSpace {
    fn drop(&mut self) {
        if self.mounted {
            // Files may still be open in it: it goes with the last of them.
            rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH).ok();
        }
    }
}

/// Has the kernel refuse io_uring to everybody, until this is dropped. A VMM then swaps with a
/// thread, and has its swap file open where others can reach it; otherwise only the kernel has it.
/// Linux 6.6 or newer.
pub(crate) struct NoIoUring(String);

const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

impl NoIoUring {
    /// Refuses it from now on. Only for a host that is ours alone.
    pub(crate) fn now() -> Result<Self> {
        ensure!(in_lab(), "io_uring is not taken from a machine that others use");
        let before = fs::read_to_string(IO_URING_DISABLED).context("asking whether there is io_uring")?;
        fs::write(IO_URING_DISABLED, "2").context("switching io_uring off")?;
        Ok(Self(before))
    }
}

impl Drop for NoIoUring {
    fn drop(&mut self) {
        // Without it everything works as well.
        fs::write(IO_URING_DISABLED, self.0.trim()).ok();
    }
}

/// A VM's swap file, which has no name: it is reached through the process that has it open.
pub(crate) struct SwapFile(File);

impl SwapFile {
    fn of(pid: u32, directory: &Path) -> Result<Self> {
        let descriptors = format!("/proc/{pid}/fd");
        let within = |path: &PathBuf| fs::read_link(path).is_ok_and(|file| file.starts_with(directory));
        let mut open = fs::read_dir(&descriptors)
            .with_context(|| format!("reading {descriptors}"))?
            .flatten()
            .map(|entry| entry.path());
        let path = open
            .find(within)
            .with_context(|| format!("process {pid} has no file in {}", directory.display()))?;
        let file = File::options().read(true).write(true).open(&path);
        file.map(Self).with_context(|| format!("opening {}", path.display()))
    }

    /// Whatever was written to it is gone: the next read of a page fails.
    pub(crate) fn lose(&self) -> Result<()> {
        self.0.set_len(0).context("truncating a swap file")
    }

    /// Gives back what was set aside for it and not written yet, as on a disk that promised more
    /// than it has. Where the file system is full, the next write to a new place fails. The VMM
    /// must stand still meanwhile.
    pub(crate) fn lose_unwritten(&self) -> Result<()> {
        let size = self.0.metadata()?.len();
        let mut at = 0;
        while at < size {
            let hole =
                rustix::fs::seek(&self.0, SeekFrom::Hole(at)).context("looking for what is not written")?;
            let end = match rustix::fs::seek(&self.0, SeekFrom::Data(hole)) {
                Ok(data) => data,
                Err(Errno::NXIO) => size,
                Err(error) => return Err(error).context("looking for what is written"),
            };
            if hole < end {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&self.0, punch, hole, end - hole).context("punching a hole")?;
            }
            at = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_without_a_name_is_found_and_what_was_not_written_of_it_is_lost_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile_in(directory.path()).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        file.seek(SeekFrom::Start(1 << 19)).unwrap();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_all().unwrap();
        let swap = SwapFile::of(std::process::id(), directory.path()).unwrap();
        swap.lose_unwritten().unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 19);
        let mut page = [0; 4096];
        file.seek(SeekFrom::Start(1 << 19)).unwrap();
        file.read_exact(&mut page).unwrap();
        assert_eq!(page, [7; 4096]);
        swap.lose().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        drop(file);
        assert!(SwapFile::of(std::process::id(), Path::new("/nowhere")).is_err());
    }
}
