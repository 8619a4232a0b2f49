//! Where VMs of a stage swap to, and what fate may do to that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_units::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::place::in_lab;
use crate::tmpfs::{Full, Tmpfs};

/// A directory for VMs' swap files.
pub struct SwapSpace {
    place: Place,
}

enum Place {
    /// In a file system that others use, too.
    Shared(TempDir),
    /// In a file system of its own, so that all that is free in it is known.
    Own(Tmpfs),
}

impl SwapSpace {
    /// Room for `size`: a file system of its own in the lab, elsewhere a directory.
    pub fn new(size: Bytes) -> Result<Self> {
        if in_lab() {
            return Self::mounted(size);
        }
        let directory = tempfile::Builder::new().prefix("plimsoll-swap-").tempdir()?;
        Ok(Self { place: Place::Shared(directory) })
    }

    /// Room for `size`, in a file system of its own.
    ///
    /// # Errors
    /// This user may not mount.
    pub fn mounted(size: Bytes) -> Result<Self> {
        Ok(Self { place: Place::Own(Tmpfs::mount("plimsoll-swap-", size)?) })
    }

    fn directory(&self) -> &Path {
        match &self.place {
            Place::Shared(directory) => directory.path(),
            Place::Own(tmpfs) => tmpfs.path(),
        }
    }

    fn own(&self) -> Option<&Tmpfs> {
        match &self.place {
            Place::Shared(_) => None,
            Place::Own(tmpfs) => Some(tmpfs),
        }
    }

    /// The daemon's configuration for it.
    pub fn setting(&self) -> String {
        let directory = self.directory().display().to_string();
        format!("swap_directory = {directory:?}\nswap.allow_memory = {}\n", self.own().is_some())
    }

    /// What is free in it; `None` where others use the same file system.
    pub fn free(&self) -> Result<Option<Bytes>> {
        self.own().map(Tmpfs::free).transpose()
    }

    /// Takes all that is free in it, until the result is dropped. Only where it is a file system of
    /// its own.
    pub fn fill(&self) -> Result<Full> {
        self.own().context("a file system that others use is not filled")?.fill()
    }

    /// The swap file of the VMM with that process id.
    pub fn file_of(&self, pid: u32) -> Result<SwapFile> {
        SwapFile::of(pid, self.directory())
    }
}

/// A VM's swap file, which has no name: it is reached through the process that has it open.
pub struct SwapFile(File);

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
    pub fn lose(&self) -> Result<()> {
        self.0.set_len(0).context("truncating a swap file")
    }

    /// Gives back what was set aside for it and not written yet, as on a disk that promised more
    /// than it has. Where the file system is full, the next write to a new place fails. The VMM
    /// must stand still meanwhile.
    pub fn lose_unwritten(&self) -> Result<()> {
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
