use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_protocol::definition::Cache;
use plimsoll_sys::ofd_lock;

use super::*;
use crate::forks::apart;

pub(super) fn disk(path: &Path, read_only: bool) -> Disk {
    Disk { read_only, ..Disk::new(path) }
}

/// Opens `disk`; images have no backing files.
fn opened(disk: &Disk) -> anyhow::Result<OpenDisk> {
    open(disk, None, Path::new("/nonexistent"))
}

#[track_caller]
fn refused(path: &Path, read_only: bool) -> String {
    let error = format!("{:#}", opened(&disk(path, read_only)).unwrap_err());
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// An image of 8 MiB.
fn image(directory: &Path) -> PathBuf {
    let path = directory.join("d.raw");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    path
}

#[test]
fn many_may_read_a_disk_or_one_may_write_it() {
    let _apart = apart();
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    let writer = opened(&disk(&path, false)).unwrap();
    for read_only in [false, true] {
        assert!(refused(&path, read_only).contains("in use"));
    }
    drop(writer);
    let _reader = opened(&disk(&path, true)).unwrap();
    assert!(opened(&disk(&path, true)).is_ok());
    assert!(opened(&disk(&path, false)).is_err());
}

#[test]
fn what_is_no_disk_is_told_apart() {
    let _apart = apart();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.raw");
    assert!(refused(&path, true).contains("No such file"));
    assert!(refused(directory.path(), true).contains("neither"));
    std::fs::write(&path, []).unwrap();
    assert!(refused(&path, true).contains("empty"));
    std::fs::write(&path, [0; 100]).unwrap();
    assert!(refused(&path, true).contains("truncated"));
    assert!(refused(Path::new("/dev/null"), true).contains("neither"));
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(refused(&pipe, true).contains("neither"), "and nothing waits");
}

#[test]
fn a_disk_that_a_program_holds_as_qemu_does_is_refused_with_its_name() {
    let _apart = apart();
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    let held = File::options().read(true).write(true).open(&path).unwrap();
    [100, 101, 201].iter().for_each(|byte| ofd_lock::share(&held, *byte).unwrap());
    // The locks go with the open file, to a process that stands for QEMU.
    let mut child = Command::new("sleep").arg("60").stdin(held).spawn().unwrap();
    let errors = [false, true].map(|read_only| refused(&path, read_only));
    child.kill().unwrap();
    child.wait().unwrap();
    let holder = format!("in use by sleep (process {})", child.id());
    assert!(errors.iter().all(|error| error.contains(&holder)), "{errors:?}");
    opened(&disk(&path, false)).unwrap();
}

/// A loop device of the host; it goes with this.
struct Loop(PathBuf);

impl Loop {
    /// `None`, with a remark, if the machine has none.
    fn attach(arguments: &[&str], backing: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(arguments).args(["--find", "--show"]).arg(backing).output();
        let made = match made {
            Ok(made) if made.status.success() => made,
            made => {
                eprintln!("SKIPPED: no loop device here: {made:?}");
                return None;
            }
        };
        Some(Self(String::from_utf8(made.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").arg("-d").arg(&self.0).status().ok();
        // The kernel detaches the file once nobody has the device open any more; other programs may
        // be looking at it.
        let device = self.0.file_name().unwrap_or_default();
        let attached = Path::new("/sys/block").join(device).join("loop/backing_file");
        let deadline = Instant::now() + Duration::from_secs(20);
        while attached.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_file_and_its_loop_device_are_one_disk() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = image(directory.path());
    let Some(attached) = Loop::attach(&[], &path) else { return };
    let node = attached.0.display().to_string();
    assert!(refused(&path, false).contains(&format!("losetup -d {node}")));
    assert!(refused(&path, true).contains(&node));
    // A device is opened exclusively by its one writer, and shared by readers.
    let writer = opened(&disk(&attached.0, false)).unwrap();
    assert!(refused(&attached.0, false).contains("in use") && refused(&attached.0, true).contains("in use"));
    drop(writer);
    let reader = opened(&disk(&attached.0, true)).unwrap();
    assert!(opened(&disk(&attached.0, true)).is_ok() && opened(&disk(&attached.0, false)).is_err());
    drop((reader, attached));
    // The file first, then a loop device of it.
    let writer = opened(&disk(&path, false)).unwrap();
    let Some(attached) = Loop::attach(&[], &path) else { return };
    for read_only in [false, true] {
        assert!(refused(&attached.0, read_only).contains("loop device of"));
    }
    drop((writer, attached));
    let Some(attached) = Loop::attach(&["--read-only"], &path) else { return };
    let (_file, _device) = (opened(&disk(&path, true)).unwrap(), opened(&disk(&attached.0, true)).unwrap());
    assert!(refused(&path, false).contains("in use"));
}

#[test]
fn a_device_that_is_written_is_held_against_the_kernel_too() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(attached) = Loop::attach(&[], &image(directory.path())) else { return };
    // As a mount, device mapper and RAID do, which know no locks.
    let exclusively = || OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&attached.0);
    let writer = opened(&disk(&attached.0, false)).unwrap();
    assert_eq!(exclusively().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    drop(writer);
    let holder = exclusively().unwrap();
    assert!(refused(&attached.0, false).contains("in use"));
    drop(holder);
    opened(&disk(&attached.0, false)).unwrap();
}

#[test]
fn a_mounted_device_is_refused_with_its_mount() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = image(directory.path());
    let run = |program: &str, arguments: &[&Path]| {
        let done = Command::new(program).args(arguments).output();
        done.is_ok_and(|done| done.status.success())
    };
    let Some(attached) = Loop::attach(&[], &path) else { return };
    let at = directory.path().join("mnt");
    std::fs::create_dir(&at).unwrap();
    if !run("mkfs.ext4", &[Path::new("-q"), &attached.0]) || !run("mount", &[&attached.0, &at]) {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    }
    let results = [(&attached.0, false), (&attached.0, true), (&path, false)]
        .map(|(path, read_only)| opened(&disk(path, read_only)).map(drop));
    assert!(run("umount", &[&at]));
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(&format!("mounted at {}", at.display())), "{error}");
    }
    opened(&disk(&attached.0, false)).unwrap();
}

#[test]
fn an_open_disk_passes_the_page_cache_by() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = image(directory.path());
    let OpenDisk { file, remark, .. } = opened(&disk(&path, false)).unwrap();
    let direct = plimsoll_sys::direct::Alignment::of(&file).unwrap();
    // Where that is not possible, the operator is told.
    assert_ne!(direct.is_some(), remark.is_some());
    if direct.is_some_and(|alignment| alignment.block > 1) {
        assert!(file.write_at(&[1; 3], 1).is_err());
    }
}

/// After a write-back that failed, the page cache may hold what storage does not.
#[test]
fn a_disk_in_the_page_cache_is_read_from_storage_when_it_is_opened() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("d.raw");
    std::fs::write(&path, [7; 1 << 16]).unwrap();
    let looked = File::open(&path).unwrap();
    let cached = || {
        let mut bytes = [0; 4096];
        let bytes = &mut [std::io::IoSliceMut::new(&mut bytes)];
        rustix::io::preadv2(&looked, bytes, 0, rustix::io::ReadWriteFlags::NOWAIT)
    };
    if plimsoll_machine::medium::file_system_in_memory(&looked).is_some() || cached() != Ok(4096) {
        eprintln!("SKIPPED: the file system of /var/tmp does not tell what is in the page cache");
        return;
    }
    let cached_disk = Disk { cache: Some(Cache::Host), ..disk(&path, false) };
    // Another thread of the kernel may hold a page for a moment.
    let dropped = (0..50).any(|_| {
        drop(opened(&cached_disk).unwrap());
        cached() == Err(rustix::io::Errno::AGAIN)
    });
    assert!(dropped);
    assert!(std::fs::read(&path).unwrap() == [7; 1 << 16]);
}

/// A qcow2 image of 1 MiB at `path`, a change of what `backing` names.
fn qcow2(path: &Path, backing: Option<&str>) -> Disk {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let storage = plimsoll_image::FileStorage::new(file).unwrap();
    let format = Some(plimsoll_image::Format::Raw);
    let backing = backing.map(|name| plimsoll_image::Backing { name: name.to_owned(), format });
    plimsoll_image::create::create(&storage, 1 << 20, 65536, backing.as_ref()).unwrap();
    Disk { format: ImageFormat::Qcow2, ..disk(path, false) }
}

#[test]
fn an_image_is_opened_with_its_backing_files_which_nobody_may_write() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let images = directory.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let base = image(&images);
    let top = qcow2(&directory.path().join("a.qcow2"), Some("images/d.raw"));
    let OpenDisk { backing, longest, .. } = open(&top, None, &images).unwrap();
    assert_eq!(backing.iter().map(|(_, format)| *format).collect::<Vec<_>>(), [ImageFormat::Raw]);
    assert_eq!(longest, Bytes((1 << 20) + (1 << 18) + (64 << 20)));
    let (error, other) =
        (refused(&base, false), qcow2(&directory.path().join("b.qcow2"), Some("images/d.raw")));
    assert!(error.contains("in use"), "{error}");
    open(&other, None, &images).unwrap();
    drop(backing);
    let writer = opened(&disk(&base, false)).unwrap();
    let error = format!("{:#}", open(&top, None, &images).unwrap_err());
    assert!(error.contains("its backing file") && error.contains("it is in use"), "{error}");
    drop(writer);
    let error = format!("{:#}", open(&top, None, &directory.path().join("other")).unwrap_err());
    assert!(error.contains("d.raw"), "{error}");
    let elsewhere = qcow2(&directory.path().join("c.qcow2"), Some("/etc/hostname"));
    let error = format!("{:#}", open(&elsewhere, None, &images).unwrap_err());
    assert!(error.contains("/etc/hostname") && error.contains("does not lie below"), "{error}");
}

#[test]
fn an_image_is_what_its_definition_says_and_not_what_it_holds() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("a.qcow2");
    let image_disk = qcow2(&path, None);
    assert!(opened(&disk(&path, false)).unwrap().backing.is_empty(), "raw, whatever its header says");
    let raw = Disk { path: image(directory.path()), ..image_disk.clone() };
    let error = format!("{:#}", opened(&raw).unwrap_err());
    assert!(error.contains("no qcow2 image"), "{error}");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1], 79).unwrap();
    let error = format!("{:#}", opened(&image_disk).unwrap_err());
    assert!(error.contains("not closed cleanly"), "{error}");
    opened(&Disk { read_only: true, ..image_disk }).unwrap();
}

/// A guest that has taken its VMM over writes the header of its image while its VM is on.
#[test]
fn an_image_reaches_no_other_files_at_its_next_start_than_at_its_first() {
    let _apart = apart();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let images = directory.path().join("images");
    std::fs::create_dir(&images).unwrap();
    image(&images);
    std::fs::write(images.join("e.raw"), [9; 4096]).unwrap();
    let path = directory.path().join("a.qcow2");
    let top = qcow2(&path, Some("images/d.raw"));
    let known = open(&top, None, &images).unwrap().image.unwrap();
    let backing: Vec<_> = known.backing.iter().map(|file| file.path.clone()).collect();
    assert_eq!((known.size, backing), (Bytes::mib(1), vec![images.join("d.raw")]));
    let again = open(&top, Some(&known), &images).unwrap();
    assert_eq!(again.image.as_ref(), Some(&known));
    drop(again);
    let refused = |part: &str| {
        let error = format!("{:#}", open(&top, Some(&known), &images).unwrap_err());
        assert!(error.contains(part) && error.contains("plimsoll disk resize"), "{error}");
    };
    let write = |bytes: &[u8], at| {
        File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
    };
    let header = std::fs::read(&path).unwrap();
    let name = header.windows(5).position(|bytes| bytes == b"d.raw").unwrap() as u64;
    write(b"e", name);
    refused("images/e.raw (raw), and not");
    assert_eq!(open(&top, None, &images).unwrap().backing.len(), 1, "an operator has changed it");
    write(b"d", name);
    // As much as its first-level table of one entry maps.
    write(&(512_u64 << 20).to_be_bytes(), 24);
    refused("has 536870912 bytes, and not 1048576");
    // Of an image that is only read the size bounds nothing.
    let read_only = Disk { read_only: true, ..top.clone() };
    let length = std::fs::metadata(&path).unwrap().len();
    assert_eq!(open(&read_only, Some(&known), &images).unwrap().longest, Bytes(length));
    write(&(1_u64 << 20).to_be_bytes(), 24);
    open(&top, Some(&known), &images).unwrap();
}

#[test]
fn no_header_lets_a_file_become_longer_than_the_largest_disk_takes() {
    assert_eq!(image::longest(1 << 20, 0), Bytes((1 << 20) + (1 << 18) + (64 << 20)));
    assert_eq!(image::longest(u64::MAX, 0), Bytes((10 << 40) + (64 << 20)));
    assert_eq!(image::longest(1 << 20, 1 << 30), Bytes(1 << 30));
}

#[test]
fn a_pipe_in_the_place_of_a_disk_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let qcow2 = Disk { format: ImageFormat::Qcow2, ..disk(&path, false) };
    assert_eq!(most(&qcow2), None);
    assert_eq!(most(&disk(&path, false)), Some(Bytes::ZERO));
}
