//! Disks whose process is killed: what was flushed is there, and an image is whole.
//!
//! The device runs in a process of its own, which writes and flushes at random and notes what it
//! does: each write before the device gets it, each flush after its answer. What it notes and what
//! the kernel has taken survive `kill -9`; what the device keeps in memory does not. (What a disk
//! keeps in memory of its own is beyond such a test: `plimsoll-image` cuts the power of a disk that
//! is a model, at every moment.)

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_image::create::create;
use plimsoll_image::{FileStorage, Format, Image, chain};
use rustix::fs::{FlockOperation, flock};

use super::*;

/// Names the directory with the disk and the notes, and the first number of a write, to the process
/// of the device.
const PLACE: &str = "PLIMSOLL_TEST_POWER_PLACE";
const FIRST: &str = "PLIMSOLL_TEST_POWER_FIRST";
/// Names the program that judges images.
const QEMU_IMG: &str = "PLIMSOLL_QEMU_IMG";
/// Sectors of the disk: with clusters of 4 KiB an image has several tables of each kind.
const DISK: u64 = 8192;
const CLUSTER: u64 = 4096;
/// Writes side by side, and the most sectors of each.
const SIDE_BY_SIDE: u64 = 6;
const LONGEST: u64 = 40;
/// How often each disk's process is killed.
const ROUNDS: u64 = 12;

/// Numbers that differ from run to run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self((u64::from(now.subsec_nanos()) ^ seed ^ u64::from(std::process::id()) << 32) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Where a disk and the notes of its process are.
struct Place {
    directory: PathBuf,
}

impl Place {
    fn disk(&self) -> PathBuf {
        // The name says the format.
        let image = self.directory.join("disk.qcow2");
        if image.exists() { image } else { self.directory.join("disk.raw") }
    }

    fn notes(&self) -> PathBuf {
        self.directory.join("notes")
    }

    fn is_image(&self) -> bool {
        self.disk().extension() == Some("qcow2".as_ref())
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(self.disk()).unwrap()
    }

    /// What the disk holds for the next process: the number of the write of each sector.
    fn content(&self) -> Vec<u64> {
        let mut content = vec![0xee; usize::try_from(DISK * SECTOR).unwrap()];
        if self.is_image() {
            image(self.open(), false).read(&mut content, 0).unwrap();
        } else {
            self.open().read_exact(&mut content).unwrap();
        }
        let number = |(sector, bytes): (usize, &[u8])| {
            let words: BTreeSet<&[u8]> = bytes.chunks(8).collect();
            assert_eq!(words.len(), 1, "sector {sector} is torn");
            u64::from_le_bytes(bytes[..8].try_into().unwrap())
        };
        content.chunks(512).enumerate().map(number).collect()
    }
}

fn image(file: File, writable: bool) -> Image<FileStorage> {
    chain::image([(file, Format::Qcow2)].into_iter(), writable).unwrap()
}

/// What each sector may hold, as numbers of writes.
struct Expected {
    may: Vec<BTreeSet<u64>>,
    last: Vec<u64>,
}

impl Expected {
    fn new(content: &[u64]) -> Self {
        Self { may: content.iter().map(|number| BTreeSet::from([*number])).collect(), last: content.to_vec() }
    }

    /// Takes what a process has noted. Returns how many writes and flushes that were.
    fn take(&mut self, notes: &str) -> (usize, usize) {
        let (mut writes, mut flushes) = (0, 0);
        // The last line may be cut off: what it would have said was never asked for.
        for line in notes.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().unwrap()).collect();
            match (words[0], &numbers[..]) {
                ("write", &[number, sector, count]) => {
                    writes += 1;
                    for sector in sector..sector + count {
                        let sector = usize::try_from(sector).unwrap();
                        self.may[sector].insert(number);
                        self.last[sector] = number;
                    }
                }
                ("flushed", []) => {
                    flushes += 1;
                    for (may, last) in self.may.iter_mut().zip(&self.last) {
                        *may = BTreeSet::from([*last]);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        (writes, flushes)
    }

    fn check(&self, content: &[u64], what: &str) {
        for (sector, number) in content.iter().enumerate() {
            let may = &self.may[sector];
            assert!(may.contains(number), "{what}: sector {sector} holds write {number} and not {may:?}");
        }
    }
}

/// In the process that is to be killed: the device, until then. In another it does nothing.
fn be_the_device() {
    let Some(directory) = std::env::var_os(PLACE) else { return };
    let place = Place { directory: directory.into() };
    let mut number: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let mut random = Random::new(number);
    let mut notes = File::options().append(true).create(true).open(place.notes()).unwrap();
    // One call a line: the kernel has it, or it was never written.
    let mut note = |line: String| notes.write_all(line.as_bytes()).unwrap();
    let file = place.open();
    // The kernel lets go of it with the last request that is in flight.
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let medium = if place.is_image() {
        Medium::Image(Arc::new(image(file, true)))
    } else {
        // As VMs' disks are, where the file system can.
        plimsoll_sys::direct::switch_on(&file).ok();
        let geometry = Geometry::of(&file).unwrap();
        Medium::File(file, geometry)
    };
    let mut rig = Rig::new(|memory, notices| {
        let rate = RateLimit::default();
        let config = BlockConfig { medium, read_only: false, rate, id: "a-disk".to_owned(), io_uring: true };
        Block::new("disk0", config, memory, notices).unwrap()
    });
    let mut queue = start(&mut rig);
    loop {
        // None lies over another: what they leave does not depend on their order.
        let begin = random.below(DISK - SIDE_BY_SIDE * LONGEST);
        let count = 1 + random.below(SIDE_BY_SIDE);
        for slot in 0..count {
            number += 1;
            let (sector, sectors) = (begin + slot * LONGEST, 1 + random.below(LONGEST));
            let is_zero = random.below(5) == 0;
            note(format!("write {} {sector} {sectors}\n", if is_zero { 0 } else { number }));
            let (at, data) = (HEADER + slot * 16, BUFFER + slot * 0x8000);
            let data = if is_zero {
                let unmap = u32::try_from(random.below(2)).unwrap();
                rig.guest.write(at, &header(13, 0));
                rig.guest.write(data, &segment(sector, u32::try_from(sectors).unwrap(), unmap));
                (data, 16, 0)
            } else {
                rig.guest.write(at, &header(1, sector));
                let length = usize::try_from(sectors * SECTOR).unwrap();
                rig.guest.write(data, &number.to_le_bytes().repeat(length / 8));
                (data, u32::try_from(length).unwrap(), 0)
            };
            rig.guest.write(STATUS + slot, &[0xee]);
            queue.add(&rig.guest, &[(at, 16, 0), data, (STATUS + slot, 1, WRITE)]);
        }
        rig.kick(&queue);
        for _ in 0..count {
            rig.wait_used(&mut queue);
        }
        let answers = rig.guest.read(STATUS, usize::try_from(count).unwrap());
        assert!(answers.iter().all(|answer| *answer == OK), "{answers:?}");
        if random.below(3) == 0 {
            assert_eq!(request(&mut rig, &mut queue, 4, 0, &[]).0, OK);
            note("flushed\n".to_owned());
        }
    }
}

/// Runs the device on the disk of `place` until it has flushed for a while, and kills it. Returns
/// its notes. The process begins as test `name` does.
fn run_and_kill(place: &Place, name: &str, first: u64, random: &mut Random) -> String {
    std::fs::write(place.notes(), "").unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    let mut device = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(PLACE, &place.directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(place.notes()).unwrap().contains("flushed") {
        assert!(Instant::now() < until, "it flushes nothing");
        assert!(device.try_wait().unwrap().is_none(), "the device's process has ended");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_micros(random.below(60_000)));
    device.kill().unwrap();
    device.wait().unwrap();
    // Direct writes in flight end a moment after their process.
    flock(place.open(), FlockOperation::LockExclusive).unwrap();
    std::fs::read_to_string(place.notes()).unwrap()
}

/// Kills the process of the disk of `place` again and again, and looks at the disk each time.
fn survives(place: &Place, name: &str, judge: impl Fn(&Path)) {
    let mut random = Random::new(DISK);
    let (mut writes, mut flushes) = (0, 0);
    for round in 0..ROUNDS {
        let mut expected = Expected::new(&place.content());
        let notes = run_and_kill(place, name, round << 32, &mut random);
        let (more, flushed) = expected.take(&notes);
        (writes, flushes) = (writes + more, flushes + flushed);
        judge(&place.disk());
        expected.check(&place.content(), &format!("round {round}"));
    }
    assert!(flushes as u64 >= ROUNDS && writes > flushes, "{writes} writes, {flushes} flushes");
}

fn fresh() -> (Place, tempfile::TempDir) {
    // Unlike /tmp, /var/tmp is on a disk almost everywhere.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    (Place { directory: directory.path().to_owned() }, directory)
}

#[test]
fn what_was_flushed_to_a_raw_disk_is_there() {
    be_the_device();
    let (place, _directory) = fresh();
    File::create(place.disk()).unwrap().set_len(DISK * SECTOR).unwrap();
    survives(&place, "what_was_flushed_to_a_raw_disk_is_there", |_| {});
}

#[test]
fn what_was_flushed_to_an_image_is_there() {
    be_the_device();
    let name = "what_was_flushed_to_an_image_is_there";
    let (place, _directory) = fresh();
    let path = place.directory.join("disk.qcow2");
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    create(&FileStorage::new(file).unwrap(), DISK * SECTOR, CLUSTER, None).unwrap();
    let qemu_img = std::env::var_os(QEMU_IMG).unwrap_or_else(|| "qemu-img".into());
    if Command::new(&qemu_img).arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: there is no qemu-img to judge the image: its content alone is looked at");
        survives(&place, name, |_| {});
        return;
    }
    survives(&place, name, |image| {
        let check = Command::new(&qemu_img).args(["check", "-q", "-f", "qcow2"]).arg(image).output().unwrap();
        // Three: clusters that nothing refers to, which a crash may leave.
        let code = check.status.code();
        assert!(matches!(code, Some(0 | 3)), "{code:?} {}", String::from_utf8_lossy(&check.stderr));
    });
}
