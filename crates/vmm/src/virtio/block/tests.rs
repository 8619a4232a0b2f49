use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use plimsoll_sys::direct::Alignment;
use rustix::fs::SealFlags;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::super::feature;
use super::super::registers::offset;
use super::super::testing::{Buffer, DATA, HIGH, INDIRECT, Queue, Rig, WRITE, descriptor};
use super::*;

mod any_requests;
mod growth;
mod images;
mod past_the_cache;
mod power;
mod rates;

const SECTORS: u64 = 8192;
const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x1000;
const BUFFER: u64 = DATA + 0x2000;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// A disk of [`SECTORS`] and a handle on its file.
fn rig(read_only: bool, io_uring: bool) -> (Rig, File) {
    limited(read_only, io_uring, RateLimit::default())
}

/// The same, held to a rate.
fn limited(read_only: bool, io_uring: bool, rate: RateLimit) -> (Rig, File) {
    let (file, kept) = file();
    (on(file, |file| Geometry::of(file).unwrap(), read_only, io_uring, rate), kept)
}

/// A file for a disk, opened twice: what is switched on for one is not on for the other.
fn file() -> (File, File) {
    // Unlike /tmp, /var/tmp is on a disk almost everywhere.
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    file.as_file().set_len(SECTORS * SECTOR + 100).unwrap();
    (file.reopen().unwrap(), file.into_file())
}

fn on(
    file: File,
    geometry: impl FnOnce(&File) -> Geometry,
    read_only: bool,
    io_uring: bool,
    rate: RateLimit,
) -> Rig {
    Rig::new(|memory, notices| {
        let geometry = geometry(&file);
        let medium = Medium::File(file, geometry);
        let config = BlockConfig { medium, read_only, rate, id: "a-disk".to_owned(), io_uring };
        Block::new("disk0", config, memory, notices).unwrap()
    })
}

/// A writable disk past the host's page cache; with blocks of 4096 bytes if `coarse`. `None`: the
/// file system has no direct I/O.
fn direct(io_uring: bool, coarse: bool) -> Option<(Rig, File)> {
    let (file, kept) = file();
    if let Err(error) = plimsoll_sys::direct::switch_on(&file) {
        eprintln!("SKIPPED: no direct I/O in /var/tmp: {error}");
        return None;
    }
    let geometry = |file: &File| {
        let told = Geometry::of(file).unwrap();
        if coarse { Geometry { direct: Some(Alignment { memory: 512, block: 4096 }), ..told } } else { told }
    };
    Some((on(file, geometry, false, io_uring, RateLimit::default()), kept))
}

fn start(rig: &mut Rig) -> Queue {
    let queue = rig.set_up(feature::EVENT_IDX | bit::FLUSH, &[QUEUE_SIZE]).remove(0);
    rig.go();
    queue
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [kind.to_le_bytes().to_vec(), vec![0; 4], sector.to_le_bytes().to_vec()].concat()
}

/// Runs one request; returns its status and the bytes written.
fn request(rig: &mut Rig, queue: &mut Queue, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    rig.guest.write(HEADER, &header(kind, sector));
    rig.guest.write(STATUS, &[0xee]);
    let mut chain = vec![(HEADER, 16, 0)];
    chain.extend(data);
    chain.push((STATUS, 1, WRITE));
    let written = rig.run(queue, &chain);
    (rig.guest.read(STATUS, 1)[0], written)
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..=250).map(|step| seed.wrapping_add(step)).cycle().take(length).collect()
}

/// Every test of data runs on both engines, through the page cache and past it.
fn on_all_disks(test: impl Fn(&mut Rig, &File)) {
    for io_uring in [true, false] {
        let disks = [Some(rig(false, io_uring)), direct(io_uring, false), direct(io_uring, true)];
        for (mut rig, file) in disks.into_iter().flatten() {
            test(&mut rig, &file);
            let notices = rig.notices.lock().unwrap();
            assert!(notices.is_empty(), "{notices:?}");
        }
    }
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let (mut writable, _) = rig(false, true);
    let mut sectors = [0; 8];
    writable.transport.read(offset::CONFIG, &mut sectors);
    assert_eq!(u64::from_le_bytes(sectors), SECTORS, "an incomplete sector at the end is not there");
    assert_eq!(writable.get(offset::CONFIG + 12), MAX_SEGMENTS);
    assert_eq!(writable.get(offset::CONFIG + 60), 0, "behind the end");
    assert_eq!(writable.offered() & bit::RO, 0);
    assert_eq!(block_sizes(&mut writable), (512, 4096));
    let (mut read_only, _) = rig(true, true);
    assert_eq!(read_only.offered() & (bit::RO | bit::DISCARD | bit::WRITE_ZEROES), bit::RO);
}

/// The logical and the physical block that the guest is shown.
fn block_sizes(rig: &mut Rig) -> (u32, u32) {
    let logical = rig.get(offset::CONFIG + 20);
    let mut exponent = [0];
    rig.transport.read(offset::CONFIG + 24, &mut exponent);
    (logical, logical << exponent[0])
}

#[test]
fn what_is_written_is_read_again_in_whatever_pieces() {
    on_all_disks(|rig, file| {
        let mut queue = start(rig);
        let data = pattern(8192, 7);
        rig.guest.write(BUFFER, &data);
        let pieces = [(BUFFER, 4096, 0), (BUFFER + 4096, 512, 0), (BUFFER + 4608, 3584, 0)];
        assert_eq!(request(rig, &mut queue, 1, 3, &pieces), (OK, 1));
        let mut on_disk = vec![0; 8192];
        file.read_exact_at(&mut on_disk, 3 * SECTOR).unwrap();
        assert!(on_disk == data);
        // Into pages that were never touched, across the end of a page, in the other region.
        let pieces = [(HIGH + 100, 5000, WRITE), (HIGH + 0x8000, 3192, WRITE)];
        assert_eq!(request(rig, &mut queue, 0, 3, &pieces), (OK, 8193));
        let read = [rig.guest.read(HIGH + 100, 5000), rig.guest.read(HIGH + 0x8000, 3192)].concat();
        assert!(read == data);
        assert_eq!(request(rig, &mut queue, 4, 0, &[]), (OK, 1), "flush");
    });
}

#[test]
fn header_data_and_status_may_be_framed_in_any_way() {
    on_all_disks(|rig, _| {
        let mut queue = start(rig);
        rig.guest.write(HEADER, &header(1, 0));
        rig.guest.write(HEADER + 16, &pattern(512, 1));
        assert_eq!(rig.run(&mut queue, &[(HEADER, 16 + 512, 0), (STATUS, 1, WRITE)]), 1);
        rig.guest.write(HEADER, &header(0, 0));
        let chain = [(HEADER, 5, 0), (HEADER + 5, 11, 0), (BUFFER, 500, WRITE), (BUFFER + 500, 13, WRITE)];
        assert_eq!(rig.run(&mut queue, &chain), 513);
        assert_eq!(rig.guest.read(BUFFER, 513), [pattern(512, 1), vec![OK]].concat());
    });
}

#[test]
fn many_requests_run_side_by_side_through_indirect_tables() {
    on_all_disks(|rig, _| {
        let mut queue = start(rig);
        let count: u8 = 200;
        let table = |i: u8| BUFFER + u64::from(i) * 64;
        let buffer = |i: u8| HIGH + u64::from(i) * 4096;
        for kind in [1u32, 0] {
            for i in 0..count {
                let at = table(i);
                let access = if kind == 0 { WRITE } else { 0 };
                rig.guest.write(at + 0x2_0000, &header(kind, u64::from(i) * 8));
                let descriptors = [
                    descriptor((at + 0x2_0000, 16, 1), 1),
                    descriptor((buffer(i), 4096, access | 1), 2),
                    descriptor((at + 0x2_0020, 1, WRITE), 0),
                ];
                rig.guest.write(at, &descriptors.concat());
                rig.guest.write(buffer(i), &pattern(4096, i * u8::from(kind == 1)));
                queue.add(&rig.guest, &[(at, 48, INDIRECT)]);
            }
            rig.kick(&queue);
            let mut heads: Vec<_> = (0..count).map(|_| rig.wait_used(&mut queue).0).collect();
            heads.sort_unstable();
            heads.dedup();
            assert_eq!(heads.len(), 200);
            for i in 0..count {
                assert_eq!(rig.guest.read(table(i) + 0x2_0020, 1), [OK]);
                assert!(rig.guest.read(buffer(i), 4096) == pattern(4096, i), "{kind} {i}");
            }
        }
    });
}

#[test]
fn requests_beyond_the_disk_or_of_odd_length_are_refused() {
    on_all_disks(|rig, file| {
        let mut queue = start(rig);
        let sector = [(BUFFER, 512, 0)];
        for (at, data) in [
            (SECTORS, &sector[..]),
            (u64::MAX, &sector),
            (u64::MAX / SECTOR, &sector),
            (SECTORS - 1, &[(BUFFER, 1024, 0)]),
            (0, &[(BUFFER, 511, 0)]),
        ] {
            assert_eq!(request(rig, &mut queue, 1, at, data), (IO_ERROR, 1), "{at}");
        }
        assert_eq!(request(rig, &mut queue, 0, SECTORS, &[(BUFFER, 512, WRITE)]), (IO_ERROR, 1));
        assert_eq!(request(rig, &mut queue, 1, SECTORS - 1, &sector), (OK, 1), "the last sector is there");
        assert_eq!(file.metadata().unwrap().len(), SECTORS * SECTOR + 100);
        assert_eq!(request(rig, &mut queue, 77, 0, &sector), (UNSUPPORTED, 1));
        assert_eq!(request(rig, &mut queue, 1, 0, &[]), (OK, 1), "nothing to write");
    });
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (mut rig, file) = rig(true, true);
    file.write_all_at(&pattern(4096, 5), 0).unwrap();
    let mut queue = start(&mut rig);
    rig.guest.write(BUFFER, &segment(0, 8, 0));
    for kind in [1, 11, 13] {
        assert_eq!(request(&mut rig, &mut queue, kind, 0, &[(BUFFER, 16, 0)]).0, IO_ERROR, "{kind}");
    }
    assert_eq!(request(&mut rig, &mut queue, 1, 0, &[(BUFFER, 512, 0)]).0, IO_ERROR);
    assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(BUFFER, 4096, WRITE)]).0, OK);
    assert!(rig.guest.read(BUFFER, 4096) == pattern(4096, 5));
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [sector.to_le_bytes().to_vec(), sectors.to_le_bytes().to_vec(), flags.to_le_bytes().to_vec()].concat()
}

#[test]
fn discarded_and_zeroed_sectors_are_freed_and_read_as_zeros() {
    on_all_disks(|rig, file| {
        let mut queue = start(rig);
        rig.guest.write(BUFFER, &pattern(65536, 3));
        assert_eq!(request(rig, &mut queue, 1, 0, &[(BUFFER, 65536, 0)]), (OK, 1));
        assert_eq!(request(rig, &mut queue, 4, 0, &[]), (OK, 1));
        let before = file.metadata().unwrap().blocks();
        for (kind, bytes, expected) in [
            (11, segment(0, 64, 0), OK),
            (13, segment(64, 8, 0), OK),
            (13, segment(72, 8, 1), OK),
            (11, segment(0, 8, 1), UNSUPPORTED),
            (13, segment(0, 8, 2), UNSUPPORTED),
            (11, segment(SECTORS, 1, 0), IO_ERROR),
            (13, segment(SECTORS - 1, 2, 0), IO_ERROR),
            (13, segment(u64::MAX, 2, 0), IO_ERROR),
            (13, segment(0, MAX_ZERO_SECTORS + 1, 0), IO_ERROR),
            (11, segment(0, 0, 0), OK),
            (13, segment(0, 8, 0)[..15].to_vec(), IO_ERROR),
            (13, [segment(0, 8, 0), segment(8, 8, 0)].concat(), IO_ERROR),
        ] {
            rig.guest.write(BUFFER, &bytes);
            let length = u32::try_from(bytes.len()).unwrap();
            let (status, _) = request(rig, &mut queue, kind, 0, &[(BUFFER, length, 0)]);
            assert_eq!(status, expected, "{kind} {bytes:?}");
        }
        assert_eq!(request(rig, &mut queue, 0, 0, &[(HIGH, 65536, WRITE)]), (OK, 65537));
        let zeroed = 80 * 512;
        assert!(rig.guest.read(HIGH, 65536)[zeroed..] == pattern(65536, 3)[zeroed..]);
        assert!(rig.guest.read(HIGH, zeroed).iter().all(|byte| *byte == 0));
        assert!(file.metadata().unwrap().blocks() < before, "no block was freed");
    });
}

#[test]
fn the_disk_tells_its_name() {
    on_all_disks(|rig, _| {
        let mut queue = start(rig);
        assert_eq!(request(rig, &mut queue, 8, 0, &[(BUFFER, 20, WRITE)]), (OK, 21));
        assert_eq!(rig.guest.read(BUFFER, 20), b"a-disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(request(rig, &mut queue, 8, 0, &[(BUFFER, 3, WRITE)]), (OK, 4));
    });
}

#[test]
fn zeros_are_written_where_the_file_cannot_zero_a_range() {
    // A sealed memfd refuses any change of its allocation with EPERM, tmpfs refuses ZERO_RANGE with
    // EOPNOTSUPP.
    let memfd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    let mut file = File::from(memfd);
    file.write_all(&pattern(1 << 20, 9)).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let kept = file.try_clone().unwrap();
    let mut rig = on(file, |file| Geometry::of(file).unwrap(), false, true, RateLimit::default());
    let mut queue = start(&mut rig);
    rig.guest.write(BUFFER, &segment(1, 300, 0));
    assert_eq!(request(&mut rig, &mut queue, 13, 0, &[(BUFFER, 16, 0)]), (OK, 1));
    let mut on_disk = vec![0xff; 1 << 20];
    kept.read_exact_at(&mut on_disk, 0).unwrap();
    let mut expected = pattern(1 << 20, 9);
    expected[512..301 * 512].fill(0);
    assert!(on_disk == expected);
}

#[test]
fn a_disk_that_fails_is_told_once_with_what_fails_and_what_to_do() {
    let memfd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    let file = File::from(memfd);
    file.set_len(1 << 20).unwrap();
    let kept = file.try_clone().unwrap();
    for io_uring in [true, false] {
        let file = kept.try_clone().unwrap();
        let mut rig = on(file, |file| Geometry::of(file).unwrap(), false, io_uring, RateLimit::default());
        let mut queue = start(&mut rig);
        // Nobody may write it from now on.
        rustix::fs::fcntl_add_seals(&kept, SealFlags::WRITE).unwrap();
        for _ in 0..3 {
            assert_eq!(request(&mut rig, &mut queue, 1, 0, &[(BUFFER, 512, 0)]), (IO_ERROR, 1));
        }
        // Space that is not given back fails nothing.
        rig.guest.write(BUFFER, &segment(0, 8, 0));
        assert_eq!(request(&mut rig, &mut queue, 11, 0, &[(BUFFER, 16, 0)]), (OK, 1));
        assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(HIGH, 512, WRITE)]), (OK, 513));
        let notices = rig.notices.lock().unwrap();
        let is_told = |notice: &String| {
            notice.starts_with("device disk0: a write has failed (Operation not permitted")
                && notice.contains("look at the host's log")
        };
        assert!(matches!(&notices[..], [notice] if is_told(notice)), "{notices:?}");
    }
}

#[test]
fn a_reset_waits_for_requests_in_flight_and_the_disk_works_again() {
    on_all_disks(|rig, _| {
        for round in 0..3 {
            let mut queue = start(rig);
            rig.guest.write(BUFFER, &pattern(65536, round));
            rig.guest.write(HEADER, &header(1, 0));
            for _ in 0..60 {
                queue.add(&rig.guest, &[(HEADER, 16, 0), (BUFFER, 65536, 0), (STATUS, 1, WRITE)]);
            }
            rig.kick(&queue);
            rig.set(offset::STATUS, 0);
            rig.guest.pmap.reset().expect("no page is pinned after a reset");
            let mut queue = start(rig);
            rig.guest.write(BUFFER, &pattern(512, round + 100));
            assert_eq!(request(rig, &mut queue, 1, 500, &[(BUFFER, 512, 0)]), (OK, 1));
            assert_eq!(request(rig, &mut queue, 0, 500, &[(HIGH, 512, WRITE)]), (OK, 513));
            assert_eq!(rig.guest.read(HIGH, 512), pattern(512, round + 100));
        }
    });
}

#[test]
fn without_io_uring_the_disk_works_and_says_so() {
    // In a thread of its own, which keeps the filter to itself and to the threads that it makes.
    let refused = std::thread::spawn(|| {
        let rules = [(libc::SYS_io_uring_setup, vec![])].into();
        let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()));
        let filter: BpfProgram =
            SeccompFilter::new(rules, allow, refuse, TargetArch::x86_64).unwrap().try_into().unwrap();
        seccompiler::apply_filter(&filter).unwrap();
        let (mut rig, _) = rig(false, true);
        let notices = rig.notices.lock().unwrap().clone();
        assert!(matches!(&notices[..], [notice] if notice.contains("refuses an io_uring")), "{notices:?}");
        let mut queue = start(&mut rig);
        assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(BUFFER, 512, WRITE)]), (OK, 513));
    });
    refused.join().unwrap();
}
