//! Swap space, for pages of VMs that machine memory cannot hold.
//!
//! Each VM has a file of its own, without a name, of its size less its reservation, allocated when
//! it starts: swapping out can then never fail for lack of space. Only the VM's process has it
//! open. It is gone with that process, whatever ends the process or the daemon.
//!
//! **Memory is no swap space.** A file system in memory, or on a compressed disk in memory, would
//! take the memory that swapping is to free, and no ledger would count it. [`SwapSite::check`]
//! refuses it.
//!
//! **A floor stays free** on the file system ([`KEPT_FREE`]): other programs write to it too, and
//! the daemon its records.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use plimsoll_machine::medium::memory_under;
use plimsoll_units::{Bytes, Pages};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// The most that swap space leaves free on its file system; on a small one it leaves a twentieth.
/// Less, and a host whose VMs swap cannot write its logs; more, and space lies idle.
const KEPT_FREE: Bytes = Bytes::mib(1024);
/// How long the space of a VM that is gone may still be taken. The kernel takes the io_uring of a
/// process apart in a worker of its own, after the process has ended, and only then lets go of the
/// swap file: a VM that is started anew would be refused for the space of its predecessor.
const LEAVING: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// Where the configuration takes swap space from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SwapChoice {
    /// There is no swap space.
    Off,
    /// The configuration is silent: from here, if that can be used.
    Default(SwapSite),
    /// From here. A directory that cannot be used is an error.
    Named(SwapSite),
}

/// Where swap space is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwapSite {
    /// The directory.
    pub(crate) directory: PathBuf,
    /// VMs encrypt what they write, each with a key that only its process has.
    pub(crate) encrypt: bool,
    /// The directory may be in memory.
    pub(crate) allow_memory: bool,
}

impl SwapSite {
    /// Checks that VMs can swap to the directory, which must exist.
    ///
    /// # Errors
    /// Why they cannot, and what to do about it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.check_medium()?;
        self.reserve(Pages(1)).map(drop)
    }

    /// Checks that the directory is not in memory.
    ///
    /// # Errors
    /// The medium that it is on, and what to do about it.
    pub(crate) fn check_medium(&self) -> anyhow::Result<()> {
        let medium = memory_under(&self.directory);
        ensure!(
            self.allow_memory || medium.is_none(),
            "swap space: {} is on {}, which is memory: name a swap_directory on a disk",
            self.directory.display(),
            medium.unwrap_or_default()
        );
        Ok(())
    }

    /// A VM's swap space of that many pages.
    ///
    /// # Errors
    /// What is short and by how much, or what the directory's file system cannot do; and what to do
    /// about it.
    pub(crate) fn allocate(&self, pages: Pages) -> anyhow::Result<File> {
        let (needs, ask) = (pages.bytes(), || space(&self.directory));
        let cannot_ask = || format!("swap space: cannot ask what is free in {}", self.directory.display());
        settled(needs, LEAVING, ask).with_context(cannot_ask)?;
        let file = take_room(needs, ask, || self.reserve(pages)).with_context(cannot_ask)?;
        file.unwrap_or_else(|space| Err(self.too_little(pages, space)))
    }

    /// A file of that many pages, set aside.
    fn reserve(&self, pages: Pages) -> anyhow::Result<File> {
        let directory = self.directory.display();
        let file = self.open().with_context(|| format!("swap space: cannot make a file in {directory}"))?;
        let size = pages.bytes();
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size.0)) {
            Ok(()) => Ok(file),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
                Err(self.too_little(pages, space(&self.directory).unwrap_or_default()))
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => bail!(
                "swap space: the file system of {directory} cannot set space aside (fallocate): name a swap_directory on ext4, XFS or \
                 another that can"
            ),
            Err(e) => Err(e).with_context(|| format!("swap space: cannot allocate {size} in {directory}")),
        }
    }

    fn too_little(&self, pages: Pages, space: Space) -> anyhow::Error {
        let (needs, free) = (pages.bytes(), space.free);
        let missing = needs.saturating_add(space.kept).saturating_sub(free);
        anyhow!(
            "swap space: it needs {needs} (size - reservation) in {}, where {free} is free and {} of it stays free, {missing} too \
             little: raise its reservation, lower its size, stop a VM, make room there, or name another swap_directory",
            self.directory.display(),
            space.kept
        )
    }

    /// A file that has never had a name, and cannot be given one. It bypasses the page cache where
    /// the file system allows that: pages that were swapped out to save memory must not lie in
    /// memory again.
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

/// A file system's room.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    /// All of it.
    size: Bytes,
    /// Free for users other than root.
    free: Bytes,
    /// Of that, left free.
    kept: Bytes,
}

impl Space {
    fn usable(self) -> Bytes {
        self.free.saturating_sub(self.kept)
    }
}

fn space(directory: &Path) -> rustix::io::Result<Space> {
    let stat = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(stat.f_frsize));
    let kept = KEPT_FREE.min(Bytes(bytes(stat.f_blocks).0 / 20));
    Ok(Space { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail), kept })
}

/// Has `take` take `needs` of the room that `ask` finds, or returns that room where it is too
/// little. VMs that are launched at once take theirs one after the other: what is left free is left
/// by all of them together.
fn take_room<T, E>(
    needs: Bytes,
    ask: impl FnOnce() -> Result<Space, E>,
    take: impl FnOnce() -> T,
) -> Result<Result<T, Space>, E> {
    static TAKING: Mutex<()> = Mutex::new(());
    let _taking = plimsoll_sys::lock(&TAKING);
    let space = ask()?;
    Ok(if needs <= space.usable() { Ok(take()) } else { Err(space) })
}

/// The room that `ask` finds as soon as `needs` fits, or after `limit`; at once if it can never
/// fit.
fn settled<E>(needs: Bytes, limit: Duration, mut ask: impl FnMut() -> Result<Space, E>) -> Result<Space, E> {
    let deadline = Instant::now() + limit;
    loop {
        let space = ask()?;
        if needs <= space.usable() || needs > space.size || Instant::now() >= deadline {
            return Ok(space);
        }
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    use super::*;

    fn site(directory: &Path) -> SwapSite {
        SwapSite { directory: directory.to_owned(), encrypt: false, allow_memory: false }
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
        assert!(error.starts_with("swap space: cannot ask what is free in /nowhere: "), "{error}");
    }

    #[test]
    fn space_that_a_vm_is_leaving_is_waited_for_and_no_other() {
        let needs = Bytes::mib(32);
        let asked = |free: &[u64], limit| {
            let mut free = free.iter().map(|mib| Bytes::mib(*mib));
            let (mut last, mut times) = (Bytes::ZERO, 0);
            let space = settled(needs, limit, || {
                last = free.next().unwrap_or(last);
                times += 1;
                rustix::io::Result::Ok(Space { size: Bytes::mib(40), free: last, kept: Bytes::mib(2) })
            });
            (needs <= space.unwrap().usable(), times)
        };
        let for_ever = Duration::from_secs(3600);
        assert_eq!(asked(&[40], for_ever), (true, 1));
        assert_eq!(asked(&[10, 33, 34], for_ever), (true, 3));
        assert_eq!(asked(&[33], Duration::ZERO), (false, 1));
        // More than the file system is.
        let never = settled(Bytes::mib(41), for_ever, || {
            rustix::io::Result::Ok(Space { size: Bytes::mib(40), free: Bytes::mib(40), kept: Bytes::ZERO })
        });
        assert_eq!(never.unwrap().free, Bytes::mib(40));
    }

    #[test]
    fn vms_that_are_launched_at_once_leave_the_floor_free_together() {
        let free = Mutex::new(Bytes::mib(40));
        let ask = || {
            let free = *free.lock().unwrap();
            // The others look now, too, if they may.
            thread::sleep(Duration::from_millis(20));
            rustix::io::Result::Ok(Space { size: Bytes::mib(40), free, kept: Bytes::mib(2) })
        };
        let needs = Bytes::mib(15);
        let launch = || {
            let take = || {
                let mut free = free.lock().unwrap();
                *free = free.saturating_sub(needs);
            };
            take_room(needs, ask, take).unwrap().is_ok()
        };
        let launched = thread::scope(|scope| {
            let launches: Vec<_> = (0..4).map(|_| scope.spawn(launch)).collect();
            launches.into_iter().map(|launch| launch.join().unwrap()).filter(|launched| *launched).count()
        });
        assert_eq!((launched, *free.lock().unwrap()), (2, Bytes::mib(10)));
    }

    #[test]
    fn a_floor_of_the_file_system_stays_free() {
        let directory = tempfile::tempdir().unwrap();
        let Space { size, free, kept } = space(directory.path()).unwrap();
        assert!(kept > Bytes::ZERO && kept <= KEPT_FREE);
        assert_eq!(Space { size, free, kept }.usable(), free.saturating_sub(kept));
        // This does not fit, whatever other programs write or remove meanwhile.
        let error = site(directory.path()).allocate(Pages::floor(size)).unwrap_err().to_string();
        assert!(error.contains("of it stays free") && error.contains("too little"), "{error}");
    }

    #[test]
    fn memory_is_no_swap_space_unless_it_is_allowed() {
        // The kernel has one here wherever tests can run.
        let mut site = site(Path::new("/dev/shm"));
        let error = site.check().unwrap_err().to_string();
        assert!(error.contains("/dev/shm is on tmpfs") && error.contains("swap_directory"), "{error}");
        site.allow_memory = true;
        site.check().unwrap();
    }
}
