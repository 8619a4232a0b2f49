//! Growing a disk's file.
//!
//! Of an image that a guest writes, the daemon reads the header alone. So its VMM makes it longer,
//! and it grows only while its VM is on.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use plimsoll_machine::medium;
use plimsoll_machine::users::{Identity, has_open};
use plimsoll_protocol::definition::{Disk, ImageFormat};
use plimsoll_units::Bytes;
use rustix::fs::{Mode, OFlags};

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
    let Some(process) = process else {
        if disk.format != ImageFormat::Raw {
            bail!("an image grows while its VM is on: start it first");
        }
        return lengthen(&open(disk, images)?.file, size);
    };
    // Opens nothing yet: a pipe does not wait, a tape does not wind.
    let place = rustix::fs::open(&disk.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let place = File::from(place.context("cannot be opened")?);
    let found = place.metadata().context("cannot be looked at")?;
    let kind = found.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "it is neither a file nor a block device");
    let path = fs::canonicalize(&disk.path).context("cannot be looked at")?;
    ensure!(
        has_open(process.pid(), &path, Identity::of(&found)).unwrap_or(false),
        "its VM has another file open: this one has taken its place since the VM was started"
    );
    // A block device is held exclusively by its VM.
    let writes = kind.is_file() && disk.format == ImageFormat::Raw;
    let file =
        OpenOptions::new().read(true).write(writes).open(format!("/proc/self/fd/{}", place.as_raw_fd()));
    let file = file.context("cannot be opened")?;
    if let Some(file_system) = medium::file_system_in_memory(&file) {
        bail!("it is on {file_system}, in memory, of which its VM was charged its size: stop the VM first");
    }
    if disk.format == ImageFormat::Raw {
        if let Some(size) = size.filter(|_| kind.is_file()) {
            process.allow_file_length(size)?;
        }
        return lengthen(&file, size);
    }
    let size = size.context("it is an image: state the size that it is to have")?;
    process.allow_file_length(longest(size.0, found.len()))?;
    Ok(size)
}

/// Makes `file` `size` bytes long, and that durable. Returns its length in whole sectors.
fn lengthen(mut file: &File, size: Option<Bytes>) -> anyhow::Result<Bytes> {
    let length = Bytes(file.seek(SeekFrom::End(0)).context("its size cannot be had")?);
    let Some(size) = size else { return Ok(Bytes(length.0 / SECTOR * SECTOR)) };
    ensure!(
        size >= length,
        "it has {length} and cannot shrink to {size}: its guest would lose what lies behind"
    );
    if size > length {
        let is_device = file.metadata().context("cannot be looked at")?.file_type().is_block_device();
        ensure!(
            !is_device,
            "it is a block device of {length}: make that longer first, with lvextend for example"
        );
        file.set_len(size.0).context("cannot grow")?;
        file.sync_all().context("its new length cannot be made durable")?;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use plimsoll_image::FileStorage;

    use super::*;
    use crate::forks::apart;

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
