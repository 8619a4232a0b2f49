//! Disks that are images, which another process writes meanwhile.

use std::path::Path;

use plimsoll_image::create::create;
use plimsoll_image::{Backing, FileStorage, Image, chain};

use super::*;

/// Bytes of a cluster of the images here, and entries of a table of the second level.
const CLUSTER: u64 = PIECE as u64;
const PIECE: usize = 64 << 10;
const ENTRIES: u64 = CLUSTER / 8;

/// An image whose extlinux boots a kernel with "old". All of that is in its base, compressed.
struct Disk {
    directory: tempfile::TempDir,
    top: File,
    base: File,
    image: Arc<Image<FileStorage>>,
}

impl Disk {
    fn new(kernel: &[u8]) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let made = |name: &str, backing: Option<&Backing>| {
            let path = directory.path().join(name);
            let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
            let storage = FileStorage::new(file.try_clone().unwrap()).unwrap();
            create(&storage, 8 << 20, CLUSTER, backing).unwrap();
            file
        };
        let base = made("base", None);
        let image = chain::image([(base.try_clone().unwrap(), Format::Qcow2)].into_iter(), true).unwrap();
        let raw = directory.path().join("raw");
        make_disk(&raw, kernel, "old");
        write_all(&image, &raw);
        image.flush().unwrap();
        compress(&base);
        let backing = Backing { name: "base".to_owned(), format: Some(Format::Qcow2) };
        let top = made("top", Some(&backing));
        // As the daemon passes it, where the file system can.
        println!("direct I/O: {}", plimsoll_sys::direct::switch_on(&top).is_ok());
        let image = opened(&top, &base);
        Self { directory, top, base, image }
    }

    fn reader(&self) -> BootReader {
        let files = [(self.top.as_fd(), Format::Qcow2), (self.base.as_fd(), Format::Qcow2)];
        BootReader::start(&files, rules()).unwrap()
    }

    /// Writes what differs from a disk that boots `kernel` with `append`, as a guest would. Nothing
    /// is flushed.
    fn install(&self, kernel: &[u8], append: &str) {
        let raw = self.directory.path().join("raw");
        make_disk(&raw, kernel, append);
        write_all(&self.image, &raw);
    }
}

fn opened(top: &File, base: &File) -> Arc<Image<FileStorage>> {
    let files = [top, base].map(|file| (file.try_clone().unwrap(), Format::Qcow2));
    Arc::new(chain::image(files.into_iter(), true).unwrap())
}

/// Makes `image` equal to the file at `raw`.
fn write_all(image: &Image<FileStorage>, raw: &Path) {
    for (new, offset) in std::fs::read(raw).unwrap().chunks(PIECE).zip((0..).step_by(PIECE)) {
        let mut old = vec![0; new.len()];
        image.read(&mut old, offset).unwrap();
        if old != new {
            image.write(new, offset).unwrap();
        }
    }
}

/// Compresses all clusters of the image in `file`: deflate, in blocks that are stored as they are.
fn compress(file: &File) {
    let number = |at: u64| {
        let mut bytes = [0; 8];
        FileExt::read_exact_at(file, &mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let is_at = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    // Where the header says that the first level is.
    let table = is_at(number(number(40)));
    let mut end = file.metadata().unwrap().len();
    let mut compressed = 0;
    for at in (0..ENTRIES).map(|entry| table + 8 * entry).filter(|at| number(*at) != 0) {
        let mut cluster = vec![0; PIECE];
        FileExt::read_exact_at(file, &mut cluster, is_at(number(at))).unwrap();
        let (first, last) = cluster.split_at(PIECE - 1);
        let stored = [&[0, 0xff, 0xff, 0, 0][..], first, &[1, 1, 0, 0xfe, 0xff], last, &[0; 512]].concat();
        file.write_all_at(&stored, end).unwrap();
        let units = CLUSTER / 512 + 1;
        file.write_all_at(&(1 << 62 | (units - 1) << 54 | end).to_be_bytes(), at).unwrap();
        end += (stored.len() as u64).next_multiple_of(512);
        compressed += 1;
    }
    assert!(compressed > 10, "{compressed} clusters are compressed");
}

#[test]
fn what_was_flushed_to_an_image_is_found_and_what_was_not_is_no_garbage() {
    if !is_own(&path_of("images::what_was_flushed_to_an_image_is_found_and_what_was_not_is_no_garbage")) {
        return;
    }
    let disk = Disk::new(&kernel(7));
    let reader = disk.reader();
    let boots = |seed: u8, append: &str| {
        let found = reader.find().unwrap();
        assert_eq!(found.cmdline, append);
        assert!(all(&found.kernel) == kernel(seed) && all(&found.initrd.unwrap()) == [9; 5000]);
    };
    boots(7, "old");
    disk.install(&kernel(9), "new");
    // No flush: what the file says is the disk before, whole.
    boots(7, "old");
    disk.image.flush().unwrap();
    boots(9, "new");
    disk.install(&kernel(11), "newer");
    disk.image.flush().unwrap();
    reader.forget().unwrap();
    boots(11, "newer");
}

#[test]
fn a_reboot_finds_what_the_guest_wrote_last() {
    if !is_own(&path_of("images::a_reboot_finds_what_the_guest_wrote_last")) {
        return;
    }
    let disk = Disk::new(&kernel(7));
    let size = Pages::ceil(Bytes::mib(64));
    let guest = Guest::of(layout::ram(size));
    let loader = |image: &Arc<Image<FileStorage>>| {
        let tables = acpi::tables(1, acpi::VirtioBus::Pci);
        Loader::new(Source::Disk(disk.reader()), Some(Arc::clone(image)), "", size, tables).unwrap()
    };
    let good = loader(&disk.image);
    disk.install(&minimal(), "new");
    good.load(guest.ram(), |_| ()).unwrap();
    assert_eq!(guest.read(layout::CMDLINE, 4), b"new\0");
    // Where a table cannot be written, the older state is not booted instead.
    let read_only = File::open(disk.directory.path().join("top")).unwrap();
    let image = opened(&read_only, &disk.base);
    image.discard(0, CLUSTER).unwrap();
    let error = format!("{:#}", loader(&image).load(guest.ram(), |_| ()).unwrap_err());
    let wanted = "boot from disk: what the guest wrote cannot be saved to the disk's image: ";
    assert!(error.starts_with(wanted), "{error}");
}

#[test]
fn an_image_that_is_damaged_is_told_and_does_not_end_the_reader() {
    if !is_own(&path_of("images::an_image_that_is_damaged_is_told_and_does_not_end_the_reader")) {
        return;
    }
    let disk = Disk::new(&kernel(7));
    let reader = disk.reader();
    // The guest's disk cannot reach these bytes; a VMM that was taken over can.
    let top = File::options().read(true).write(true).open(disk.directory.path().join("top")).unwrap();
    for (at, bytes, part) in [
        (0, &b"XFI\xfb"[..], "the disk cannot be read: it is no qcow2 image"),
        (40, &u64::MAX.to_be_bytes()[..], "the disk cannot be read: its metadata is damaged"),
        (3 * CLUSTER, &(CLUSTER + 512).to_be_bytes()[..], "metadata is damaged"),
    ] {
        let mut before = vec![0; bytes.len()];
        FileExt::read_exact_at(&top, &mut before, at).unwrap();
        top.write_all_at(bytes, at).unwrap();
        let error = format!("{:#}", reader.find().unwrap_err());
        assert!(error.contains(part), "{at}: {error}");
        top.write_all_at(&before, at).unwrap();
        assert_eq!(reader.find().unwrap().cmdline, "old", "{at}");
    }
}

#[test]
fn the_reader_of_an_image_has_its_files_to_read_only_and_little_memory() {
    if !is_own(&path_of("images::the_reader_of_an_image_has_its_files_to_read_only_and_little_memory")) {
        return;
    }
    let disk = Disk::new(&kernel(7));
    let reader = disk.reader();
    all(&reader.find().unwrap().kernel);
    reader.forget().unwrap();
    let process = format!("/proc/{}", pid_of(&reader));
    let private = private_memory(&process);
    println!("{private} KiB of its own");
    assert!(private < 2048, "{private} KiB");
    if rustix::process::geteuid().is_root() {
        let mut names = Vec::new();
        for fd in std::fs::read_dir(format!("{process}/fd")).unwrap() {
            let fd = fd.unwrap();
            let to = std::fs::read_link(fd.path()).unwrap();
            names.push(to.file_name().unwrap().to_string_lossy().split(':').next().unwrap().to_owned());
            let info = format!("{process}/fdinfo/{}", fd.file_name().to_string_lossy());
            let info = std::fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let writes = i32::from_str_radix(flags, 8).unwrap() & libc::O_ACCMODE != libc::O_RDONLY;
            assert_eq!(writes, to.to_string_lossy().starts_with("socket:"), "{to:?} {flags}");
        }
        names.sort();
        assert_eq!(names, ["base", "socket", "top"]);
    }
}
