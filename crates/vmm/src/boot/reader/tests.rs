//! The reader's process, started as the VMM starts it, and processes that answer in its place.
//!
//! Each test that forks runs itself again as a child, which has few other threads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_protocol::definition::JailPart;
use plimsoll_units::{Bytes, Pages};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::kernel_image::tests::minimal;
use super::super::loader::{Loader, Source};
use super::super::{acpi, layout};
use super::message::{Answer, HEAD, Head, REQUEST, Request};
use super::*;
use crate::own_process::{INSIDE, command, is_inside, is_own, text};
use crate::virtio::testing::Guest;

mod images;

/// A uid that owns nothing here.
const STRANGER: u32 = 54_321;

fn rules() -> jail::Rules<'static> {
    // Without root only a part of the jail can be had.
    let root = rustix::process::geteuid().is_root();
    let allow_missing: &[JailPart] = if root { &[] } else { &[JailPart::Uid, JailPart::Filesystem] };
    jail::Rules { uid: root.then_some(STRANGER), longest_file: Bytes::mib(64), connections: 0, allow_missing }
}

/// The path of the test `name`.
fn path_of(name: &str) -> String {
    format!("boot::reader::tests::{name}")
}

/// The reader of a raw disk.
fn raw(disk: &File) -> BootReader {
    BootReader::start(&[(disk.as_fd(), Format::Raw)], rules()).unwrap()
}

/// Writes a disk to `path` whose extlinux boots `kernel` with `append`.
fn make_disk(path: &std::path::Path, kernel: &[u8], append: &str) {
    let root = tempfile::tempdir().unwrap();
    let config = format!("label a\n linux /vmlinuz\n initrd /initrd\n append {append}\n");
    for (name, bytes) in
        [("extlinux.conf", config.as_bytes()), ("vmlinuz", kernel), ("initrd", &[9; 5000][..])]
    {
        std::fs::write(root.path().join(name), bytes).unwrap();
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-F", "-t", "ext4", "-d"]);
    let status = mke2fs.arg(root.path()).arg(path).arg("8m").status();
    assert!(status.expect("mke2fs of Debian's package e2fsprogs is needed").success());
}

fn kernel(seed: u8) -> Vec<u8> {
    (0..700_001u32).map(|n| n.to_le_bytes()[usize::from(seed) % 3].wrapping_mul(seed)).collect()
}

fn all(file: &DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(BootFile::len(file).unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn each_boot_reads_the_disk_anew() {
    if !is_own(&path_of("each_boot_reads_the_disk_anew")) {
        return;
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("disk");
    make_disk(&path, &kernel(7), "old");
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    // As the daemon passes it, where the file system can.
    let direct = plimsoll_sys::direct::switch_on(&disk).is_ok();
    println!("direct I/O: {direct}");
    let reader = raw(&disk);
    let found = reader.find().unwrap();
    assert_eq!(found.cmdline, "old");
    assert_eq!(found.description, "\"a\" of /extlinux.conf on the disk: /vmlinuz on the disk");
    assert!(all(&found.kernel) == kernel(7) && all(&found.initrd.unwrap()) == [9; 5000]);
    let mut piece = [0; 9];
    found.kernel.read_exact_at(&mut piece, 600_000).unwrap();
    assert_eq!(piece, kernel(7)[600_000..600_009]);
    assert!(found.kernel.read_exact_at(&mut piece, 700_000).is_err());
    reader.forget().unwrap();
    assert!(found.kernel.read_exact_at(&mut piece, 0).unwrap_err().to_string().contains("no such file"));

    make_disk(&path, &kernel(9), "new");
    let found = reader.find().unwrap();
    assert_eq!(found.cmdline, "new");
    assert!(all(&found.kernel) == kernel(9));

    disk.write_all_at(&vec![0; 8192], 0).ok();
    std::fs::write(&path, vec![0; 8 << 20]).unwrap();
    let error = format!("{:#}", reader.find().unwrap_err());
    assert!(error.starts_with("the disk cannot be booted: no file system on it can be read"), "{error}");
    make_disk(&path, &kernel(7), "mended");
    assert_eq!(reader.find().unwrap().cmdline, "mended", "an error is not the reader's end");
}

#[test]
fn what_the_disk_boots_is_in_guest_memory_with_what_is_added() {
    if !is_own(&path_of("what_the_disk_boots_is_in_guest_memory_with_what_is_added")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    make_disk(&path, &minimal(), "root=x");
    let reader = raw(&File::open(&path).unwrap());
    let size = Pages::ceil(Bytes::mib(64));
    let guest = Guest::of(layout::ram(size));
    let tables = acpi::tables(1, acpi::VirtioBus::Mmio(0));
    let loader = Loader::new(Source::Disk(reader), None, "console=ttyS0", size, tables).unwrap();
    let mut told = String::new();
    let loaded = loader.load(guest.ram(), |text| told = text).unwrap();
    assert_eq!(told, "boots \"a\" of /extlinux.conf on the disk: /vmlinuz on the disk");
    assert_eq!(guest.read(layout::CMDLINE, 21), b"root=x console=ttyS0\0");
    let payload = minimal().split_off(1024);
    assert_eq!((loaded.entry, guest.read(0x100_0000, payload.len())), (0x100_0200, payload));
    assert_eq!(guest.read((64 << 20) - 8192, 5000), [9; 5000]);
    make_disk(&path, b"no kernel", "root=y");
    let error = format!("{:#}", loader.load(guest.ram(), |_| ()).unwrap_err());
    let wanted =
        "boot from disk: \"a\" of /extlinux.conf on the disk: /vmlinuz on the disk: kernel: it ends after 9";
    assert!(error.starts_with(wanted), "{error}");
}

/// The process of `reader`.
fn pid_of(reader: &BootReader) -> u32 {
    let info = format!("/proc/self/fdinfo/{}", lock(&reader.0).child().as_raw_fd());
    let info = std::fs::read_to_string(info).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
}

/// KiB of memory that the process has for itself.
fn private_memory(process: &str) -> u64 {
    let memory = std::fs::read_to_string(format!("{process}/smaps_rollup")).unwrap();
    let line = memory.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn start() -> (BootReader, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    make_disk(&path, &kernel(7), "x");
    let reader = raw(&File::open(&path).unwrap());
    reader.find().unwrap();
    (reader, directory)
}

#[test]
fn the_reader_has_two_descriptors_little_memory_and_a_filter() {
    if !is_own(&path_of("the_reader_has_two_descriptors_little_memory_and_a_filter")) {
        return;
    }
    let (reader, _directory) = start();
    let process = format!("/proc/{}", pid_of(&reader));
    reader.forget().unwrap();
    let private = private_memory(&process);
    println!("{private} KiB of its own");
    assert!(private < 2048, "{private} KiB");
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!((line("Seccomp:").as_str(), line("NoNewPrivs:").as_str()), ("2", "1"));
    assert_eq!(line("CapEff:"), "0000000000000000");
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max data size             67108864")), "{limits}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(line("Uid:").split_whitespace().next(), Some("54321"));
        let fds = std::fs::read_dir(format!("{process}/fd")).unwrap();
        let fds: Vec<_> = fds.map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap()).collect();
        let socket = fds.iter().filter(|fd| fd.to_string_lossy().starts_with("socket:")).count();
        let disk = fds.iter().filter(|fd| fd.ends_with("disk")).count();
        assert_eq!((fds.len(), socket, disk), (2, 1, 1), "{fds:?}");
    }
}

#[test]
fn the_reader_ends_with_its_vmm() {
    if is_inside() {
        let (reader, _directory) = start();
        println!("reader is {}", pid_of(&reader));
        thread::sleep(Duration::from_secs(1000));
    }
    let mut vmm = command(&path_of("the_reader_ends_with_its_vmm")).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let pid: u32 = loop {
        let mut byte = [0];
        assert_eq!(vmm.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{said}");
        said.push(byte[0].into());
        let line = said.split_once("reader is ").and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((pid, _)) = line {
            break pid.parse().unwrap();
        }
    };
    assert!(alive(pid));
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while alive(pid) {
        assert!(Instant::now() < deadline, "the reader outlives its VMM");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether there is such a process, and it has not ended.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn what_the_reader_does_not_need_kills_it() {
    type Try = fn(&File);
    let tries: [(&str, Try); 4] = [
        ("open", |_| drop(File::open("/").unwrap_err())),
        ("write", |disk| drop(disk.write_at(b"x", 0))),
        ("append", |mut disk| drop(disk.write(b"x"))),
        ("socket", |_| drop(UnixStream::pair())),
    ];
    if let Some(which) = std::env::var_os(INSIDE) {
        let disk = tempfile::tempfile().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        jail::filter_reader(rules(), socket.as_raw_fd()).unwrap();
        rustix::io::write(&socket, b"allowed").unwrap();
        disk.read_at(&mut [0; 4], 0).unwrap();
        let forbidden = tries.iter().find(|(name, _)| which == *name).unwrap().1;
        forbidden(&disk);
        libc_fork::exit();
    }
    for (name, _) in tries {
        let mut command = command(&path_of("what_the_reader_does_not_need_kills_it"));
        let output = command.env(INSIDE, name).output().unwrap();
        // Nothing can be opened: the kernel seems not to have the call, because malloc tries it.
        let wanted = if name == "open" { None } else { Some(libc::SIGSYS) };
        assert_eq!(output.status.signal(), wanted, "{name}: {}", text(&output));
        assert!(wanted.is_some() || output.status.success(), "{name}: {}", text(&output));
    }
}

/// A link to `answers`, which is called with each request, and a process that is to be killed.
fn fake(answers: impl Fn(&mut UnixStream, u32, Request) + Send + 'static) -> (Link, Child) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; REQUEST];
        while theirs.read_exact(&mut bytes).is_ok() {
            let (sequence, request) = Request::decode(&bytes).unwrap();
            answers(&mut theirs, sequence, request);
        }
    });
    let process = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    (Link::new(OwnedFd::from(ours), pidfd_open(pid, PidfdFlags::empty()).unwrap()), process)
}

fn say(stream: &mut UnixStream, sequence: u32, failed: bool, length: u32, body: &[u8]) {
    stream.write_all(&Head { sequence, failed, length }.encode()).unwrap();
    stream.write_all(body).unwrap();
}

fn good() -> Vec<u8> {
    Answer { kernel: 10, initrd: 0, cmdline: "x".to_owned(), description: "y".to_owned() }.encode()
}

fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap()
}

#[test]
fn a_reader_that_breaks_a_rule_is_killed() {
    type Lie = fn(&mut UnixStream, u32);
    let lies: [(&str, Lie); 7] = [
        ("number", |s, n| say(s, n + 1, false, length(&good()), &good())),
        ("length", |s, n| say(s, n, false, u32::MAX, b"")),
        ("error's length", |s, n| say(s, n, true, 2000, &[b'x'; 2000])),
        ("cut off", |s, n| say(s, n, false, 17, &good()[..17])),
        ("control characters", |s, n| {
            let answer =
                Answer { kernel: 1, initrd: 0, cmdline: "a\nb".to_owned(), description: String::new() };
            say(s, n, false, length(&answer.encode()), &answer.encode());
        }),
        ("no kernel", |s, n| {
            let answer = Answer { kernel: 0, initrd: 0, cmdline: String::new(), description: String::new() };
            say(s, n, false, length(&answer.encode()), &answer.encode());
        }),
        ("end", |s, _| s.shutdown(std::net::Shutdown::Both).unwrap()),
    ];
    for (name, lie) in lies {
        let (mut link, mut process) = fake(move |stream, sequence, _| lie(stream, sequence));
        let error = link.find().unwrap_err().to_string();
        assert!(error.starts_with("the boot reader"), "{name}: {error}");
        assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL), "{name}");
        assert!(link.find().unwrap_err().to_string().contains("has ended"), "{name}");
    }
}

#[test]
fn what_comes_too_much_or_too_little_is_noticed() {
    for (sent, claimed) in [(5, 5), (20, 20), (20, 10)] {
        let (mut link, mut process) = fake(move |stream, sequence, request| match request {
            Request::Find => say(stream, sequence, false, length(&good()), &good()),
            _ => say(stream, sequence, false, claimed, &vec![1; sent]),
        });
        link.find().unwrap();
        let mut buffer = [0; 10];
        let mut read = link.read(Which::Kernel, &mut buffer, 0);
        if read.is_ok() {
            // What came too much is taken for the next answer.
            read = link.read(Which::Kernel, &mut buffer, 0);
        }
        read.unwrap_err();
        assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL), "{sent}");
    }
}

#[test]
fn a_reader_that_says_nothing_is_killed_in_time() {
    let (mut link, mut process) = fake(|_, _, _| {});
    link.set_time_left(Duration::from_millis(50));
    assert!(link.forget().unwrap_err().to_string().contains("took more than"));
    assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn an_error_of_the_readers_is_told_and_does_not_end_it() {
    let (mut link, mut process) = fake(|stream, sequence, _| say(stream, sequence, true, 4, b"sad."));
    for _ in 0..2 {
        assert_eq!(link.find().unwrap_err().to_string(), "sad.");
    }
    assert!(process.try_wait().unwrap().is_none());
    drop(link);
    assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL), "it ends with the link");
}

#[test]
fn messages_read_back_as_they_were() {
    for request in [
        Request::Find,
        Request::Read { which: Which::Kernel, offset: u64::MAX - 3, length: 7 },
        Request::Read { which: Which::Initrd, offset: 1, length: u32::MAX },
        Request::Forget,
    ] {
        assert_eq!(Request::decode(&request.encode(9)), Some((9, request)));
    }
    let head = Head { sequence: 3, failed: true, length: 70_000 };
    let bytes: [u8; HEAD] = head.encode();
    assert_eq!(Head::decode(bytes), head);
    let long = Answer { kernel: 1, initrd: 2, cmdline: "x".repeat(5000), description: "\u{e4}".repeat(5000) };
    let bytes = long.encode();
    assert!(bytes.len() <= message::MAX_ANSWER);
    let read = Answer::decode(&bytes).unwrap();
    assert_eq!((read.kernel, read.initrd, read.cmdline.len(), read.description.len()), (1, 2, 4096, 1024));
}
