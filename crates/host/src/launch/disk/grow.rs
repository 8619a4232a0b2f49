//! Growing a disk's file.
//!
//! Of an image that a guest writes, the daemon reads the header alone. So its VMM makes it longer,
//! and it grows only while its VM is on.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use plimsoll_image::create::MAX_SIZE;
use plimsoll_machine::medium;
use plimsoll_machine::users::{Identity, has_open};
use plimsoll_protocol::definition::{Cache, Disk, ImageFormat};
use plimsoll_sys::direct::{self, Alignment};
use plimsoll_units::Bytes;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::image::longest;
use super::{SECTOR, open};
use crate::process::Process;

/// Makes the file of `disk` as long as the guest is to see it. `process` is the VMM that has it
/// open; `None`: its VM is off. `size` is what an operator asks for; `None`: as much as its file or
/// device has. Returns the bytes that the guest may use.
///
/// # Errors
/// Why it does not grow, and what to do.
pub(crate) fn grow(
    disk: &Disk,
    size: Option<Bytes>,
    process: Option<&Process>,
    images: &Path,
) -> anyhow::Result<Bytes> {
    // Before anything is changed for it.
    if let Some(size) = size.filter(|size| size.0 > MAX_SIZE) {
        bail!("{size}: a disk has at most {}", Bytes(MAX_SIZE));
    }
    let Some(process) = process else {
        return match (disk.format, size) {
            (ImageFormat::Raw, size) => {
                let file = open(disk, None, images)?.file;
                let alignment = Alignment::of(&file).context("direct I/O does not work on it")?;
                lengthen(&file, &Length::of(&file, alignment)?, size)
            }
            (ImageFormat::Qcow2, None) => {
                let found = open(disk, None, images)?.image;
                found.map(|image| image.size).ok_or_else(|| anyhow!("it is no image"))
            }
            (ImageFormat::Qcow2, Some(_)) => bail!("an image grows while its VM is on: start it first"),
        };
    };
    // Opens nothing yet: a pipe does not wait, a tape does not wind.
    let place = rustix::fs::open(&disk.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let place = File::from(place.context("cannot be opened")?);
    let found = place.metadata().context("cannot be looked at")?;
    let kind = found.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "it is neither a file nor a block device");
    let path = fs::canonicalize(&disk.path).context("cannot be looked at")?;
    let has_it = has_open(process.pid(), &path, Identity::of(&found));
    ensure!(
        has_it.context(
            "the files that its VM has open cannot be looked at: that takes a plimsolld that runs as root, with \
             CAP_SYS_PTRACE"
        )?,
        "its VM has another file open: this one has taken its place since the VM was started"
    );
    // A block device is held exclusively by its VM.
    let writes = kind.is_file() && disk.format == ImageFormat::Raw;
    let file =
        OpenOptions::new().read(true).write(writes).open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let file = file.context("cannot be opened")?;
    if let Some(memory) = medium::memory_under(&disk.path).filter(|_| kind.is_file()) {
        bail!("it is on {memory}, in memory, of which its VM was charged its size: stop the VM first");
    }
    if disk.format == ImageFormat::Raw {
        let length = Length::of(&file, asked_of(disk, &file))?;
        if kind.is_file() {
            // Also where somebody else has made it longer: its VMM may write as far as it did.
            process.allow_file_length(length.checked(size)?)?;
        }
        return lengthen(&file, &length, size);
    }
    let size = size.context("it is an image: state the size that it is to have")?;
    process.allow_file_length(longest(size.0, found.len()))?;
    Ok(size)
}

/// What direct I/O asks of the VMM that has `disk` open, by `file`, another opening of it. `None`:
/// it goes through the page cache.
fn asked_of(disk: &Disk, file: &File) -> Option<Alignment> {
    let asked = if disk.cache() == Cache::None { direct::switch_on(file).ok()? } else { return None };
    direct::switch_off(file).is_ok().then_some(asked)
}

/// The length of a raw disk's file or device.
#[derive(Debug)]
struct Length {
    now: Bytes,
    /// What the length of its disk is a multiple of. Past the page cache the rest of a block could
    /// not be written.
    blocks: u64,
    is_device: bool,
}

impl Length {
    /// That of `file`, of which direct I/O asks for this.
    fn of(mut file: &File, direct: Option<Alignment>) -> anyhow::Result<Self> {
        let blocks = direct.map_or(SECTOR, |alignment| u64::from(alignment.block).max(SECTOR));
        let now = Bytes(file.seek(SeekFrom::End(0)).context("its size cannot be had")?);
        let is_device = file.metadata().context("cannot be looked at")?.file_type().is_block_device();
        Ok(Self { now, blocks, is_device })
    }

    /// The bytes that the guest may use if the disk is to have `size`.
    ///
    /// # Errors
    /// It cannot have that.
    fn checked(&self, size: Option<Bytes>) -> anyhow::Result<Bytes> {
        let &Self { now, blocks, is_device } = self;
        let Some(size) = size else { return Ok(Bytes(now.0 / blocks * blocks)) };
        ensure!(
            size >= now,
            "it has {now} and cannot shrink to {size}: its guest would lose what lies behind"
        );
        ensure!(
            size == now || !is_device,
            "it is a block device of {now}: make that longer first, with lvextend for example"
        );
        ensure!(
            size == now || size.0.is_multiple_of(blocks),
            "{} bytes are no multiple of {blocks}, the blocks of its storage",
            size.0
        );
        Ok(size)
    }
}

/// Makes `file` `size` bytes long, and that durable. Returns the bytes that the guest may use.
fn lengthen(file: &File, length: &Length, size: Option<Bytes>) -> anyhow::Result<Bytes> {
    let size = length.checked(size)?;
    if size > length.now {
        // Allocates its last bytes. Unlike ftruncate it never cuts a file that became longer
        // meanwhile.
        match rustix::fs::fallocate(file, FallocateFlags::empty(), size.0 - 1, 1) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size.0).context("cannot grow")?,
            done => done.context("cannot grow")?,
        }
        file.sync_all().context("its new length cannot be made durable")?;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use plimsoll_image::FileStorage;
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    use super::*;
    use crate::forks::apart;
    use crate::process::file_length;
    use crate::process::tests::may_raise_limits;

    /// A process that has a disk of 1 MiB open, as a VMM has.
    struct Held {
        _directory: tempfile::TempDir,
        path: PathBuf,
        child: Child,
    }

    impl Held {
        fn new() -> Self {
            // Unlike /tmp, /var/tmp is on a disk almost everywhere.
            let directory = tempfile::tempdir_in("/var/tmp").unwrap();
            let path = directory.path().join("d.raw");
            let file = File::create(&path).unwrap();
            file.set_len(1 << 20).unwrap();
            let child = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
            Self { _directory: directory, path, child }
        }

        fn grow(&self, disk: &Disk, size: Option<Bytes>) -> anyhow::Result<Bytes> {
            grow(disk, size, Some(&Process::of_child(&self.child).unwrap()), Path::new("/nonexistent"))
        }

        /// Lets it write files of 1 MiB, and raise that to `most` bytes.
        fn lower_limit(&self, most: u64) {
            let limit = Rlimit { current: Some(1 << 20), maximum: Some(most) };
            prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
        }

        /// The most bytes that it may write to a file.
        fn limit(&self) -> Bytes {
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
            file_length(&limits).unwrap()
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    fn alone(disk: &Disk, size: Option<Bytes>) -> anyhow::Result<Bytes> {
        grow(disk, size, None, Path::new("/nonexistent"))
    }

    fn text(result: anyhow::Result<Bytes>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn a_raw_file_grows_and_does_not_shrink_whether_its_vm_is_on_or_off() {
        let _apart = apart();
        let held = Held::new();
        let disk = Disk::new(&held.path);
        let length = || std::fs::metadata(&held.path).unwrap().len();
        for (grown, mib) in
            [(held.grow(&disk, Some(Bytes::mib(2))), 2), (alone(&disk, Some(Bytes::mib(3))), 3)]
        {
            assert_eq!(grown.unwrap(), Bytes::mib(mib));
        }
        assert_eq!(length(), 3 << 20);
        for shrunk in [held.grow(&disk, Some(Bytes::mib(2))), alone(&disk, Some(Bytes::mib(2)))] {
            assert!(text(shrunk).contains("cannot shrink to 2MiB"));
        }
        // Somebody else has made it longer.
        let lengthen =
            |length| File::options().write(true).open(&held.path).unwrap().set_len(length).unwrap();
        lengthen(5 << 20);
        for found in [held.grow(&disk, None), alone(&disk, None)] {
            assert_eq!(found.unwrap(), Bytes::mib(5));
        }
        // The last bytes are no sector: a guest that runs has the sectors, and none starts with it.
        lengthen((5 << 20) + 100);
        assert_eq!(held.grow(&disk, None).unwrap(), Bytes::mib(5));
        assert!(text(alone(&disk, None)).contains("no multiple of 512"));
        assert_eq!(length(), (5 << 20) + 100);
    }

    /// A file that was made longer without the daemon: its VMM was started with a shorter one.
    #[test]
    fn a_size_that_is_found_is_one_that_the_vmm_may_write() {
        let _apart = apart();
        let held = Held::new();
        held.lower_limit(1 << 20);
        File::options().write(true).open(&held.path).unwrap().set_len(5 << 20).unwrap();
        let grown = held.grow(&Disk::new(&held.path), None);
        if may_raise_limits() {
            assert_eq!((grown.unwrap(), held.limit()), (Bytes::mib(5), Bytes::mib(5)));
        } else {
            let error = text(grown);
            assert!(error.contains("CAP_SYS_RESOURCE"), "{error}");
        }
    }

    #[test]
    fn a_size_that_cannot_be_had_raises_no_limit() {
        let _apart = apart();
        let held = Held::new();
        held.lower_limit(1 << 30);
        let raw = Disk::new(&held.path);
        let qcow2 = Disk { format: ImageFormat::Qcow2, ..raw.clone() };
        for disk in [&raw, &qcow2] {
            assert!(text(held.grow(disk, Some(Bytes(MAX_SIZE + 512)))).contains("at most 8TiB"));
        }
        assert!(text(held.grow(&raw, Some(Bytes(512)))).contains("cannot shrink"));
        assert_eq!(held.limit(), Bytes::mib(1));
    }

    #[test]
    fn a_disk_past_the_page_cache_has_whole_blocks_of_its_storage() {
        let length = |now, is_device| Length { now: Bytes(now), blocks: 4096, is_device };
        let odd = (1 << 20) + 512;
        let error = text(length(1 << 20, false).checked(Some(Bytes(odd))));
        assert!(error.contains("no multiple of 4096, the blocks of its storage"), "{error}");
        assert_eq!(length(odd, true).checked(None).unwrap(), Bytes::mib(1), "the guest gets what it can use");
        // It may have been so before.
        assert_eq!(length(odd, false).checked(Some(Bytes(odd))).unwrap(), Bytes(odd));
        assert!(text(length(1 << 20, true).checked(Some(Bytes::mib(2)))).contains("lvextend"));
    }

    #[test]
    fn a_file_that_has_taken_the_place_of_a_disk_is_left_alone() {
        let _apart = apart();
        let held = Held::new();
        std::fs::remove_file(&held.path).unwrap();
        File::create(&held.path).unwrap().set_len(1 << 20).unwrap();
        let refused = text(held.grow(&Disk::new(&held.path), Some(Bytes::mib(2))));
        assert!(refused.contains("has taken its place"), "{refused}");
        assert_eq!(std::fs::metadata(&held.path).unwrap().len(), 1 << 20);
    }

    #[test]
    fn an_image_is_left_to_its_vmm() {
        let _apart = apart();
        let held = Held::new();
        let storage =
            FileStorage::new(File::options().read(true).write(true).open(&held.path).unwrap()).unwrap();
        storage.file().set_len(0).unwrap();
        plimsoll_image::create::create(&storage, 1 << 20, 4096, None).unwrap();
        let disk = Disk { format: ImageFormat::Qcow2, ..Disk::new(&held.path) };
        let length = std::fs::metadata(&held.path).unwrap().len();
        assert_eq!(held.grow(&disk, Some(Bytes::mib(2))).unwrap(), Bytes::mib(2));
        assert!(text(held.grow(&disk, None)).contains("state the size"));
        assert!(text(alone(&disk, Some(Bytes::mib(2)))).contains("start it first"));
        // Of one whose VM is off, what it says is taken up. The process here has no locks on it.
        assert_eq!(alone(&disk, None).unwrap(), Bytes::mib(1));
        assert_eq!(std::fs::metadata(&held.path).unwrap().len(), length, "the daemon writes no image");
    }

    #[test]
    fn what_lies_in_memory_does_not_grow_while_its_vm_is_on() {
        let _apart = apart();
        let mut held = Held::new();
        let shm = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        shm.as_file().set_len(1 << 20).unwrap();
        held.child.kill().unwrap();
        held.child.wait().unwrap();
        held.child = Command::new("sleep").arg("60").stdin(shm.reopen().unwrap()).spawn().unwrap();
        let refused = text(held.grow(&Disk::new(shm.path()), Some(Bytes::mib(2))));
        assert!(refused.contains("in memory"), "{refused}");
    }
}
