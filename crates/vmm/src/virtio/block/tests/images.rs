//! Disks that are images.

use plimsoll_image::create::create;
use plimsoll_image::{Backing, FileStorage, Format, Image, chain};
use plimsoll_protocol::control::ExitReason;
use proptest::prelude::*;

use super::*;

/// Bytes of the disk, in clusters of [`CLUSTER`] bytes.
const SIZE: usize = 256 * 512;
const CLUSTER: u64 = 8192;

/// An image, a change of a raw file that is full of sevens; and where it is.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(directory.path().join("base"), vec![7; SIZE / 2]).unwrap();
        let file = File::create_new(directory.path().join("top")).unwrap();
        let backing = Backing { name: "base".to_owned(), format: Some(Format::Raw) };
        create(&FileStorage::new(file).unwrap(), SIZE as u64, CLUSTER, Some(&backing)).unwrap();
        Self { directory }
    }

    fn open(&self, writable: bool, direct: bool) -> Image<FileStorage> {
        let links =
            chain::open(&self.directory.path().join("top"), Format::Qcow2, writable, self.directory.path());
        let links = links.unwrap();
        if direct && let Err(error) = plimsoll_sys::direct::switch_on(&links[0].file) {
            eprintln!("SKIPPED: no direct I/O in /var/tmp: {error}");
        }
        let files: Vec<_> = links.into_iter().map(|link| (link.format(), link.file)).collect();
        chain::image(files.into_iter().map(|(format, file)| (file, format)), writable).unwrap()
    }

    fn rig(&self, read_only: bool, direct: bool) -> Rig {
        rig_of(&Arc::new(self.open(!read_only, direct)), read_only)
    }

    /// What the image holds for others.
    fn content(&self) -> Vec<u8> {
        let mut content = vec![0xee; SIZE];
        self.open(false, false).read(&mut content, 0).unwrap();
        content
    }
}

fn rig_of(image: &Arc<Image<FileStorage>>, read_only: bool) -> Rig {
    let medium = Medium::Image(Arc::clone(image));
    Rig::new(|memory, notices| {
        let rate = RateLimit::default();
        let config = BlockConfig { medium, read_only, rate, id: "a-disk".to_owned(), io_uring: true };
        Block::new("disk0", config, memory, notices).unwrap()
    })
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Read,
    Write(u8),
    Zero(u32),
    Discard,
    Flush,
    Reset,
}

fn asks() -> impl Strategy<Value = Vec<(u64, u32, Ask)>> {
    let ask = prop_oneof![
        3 => Just(Ask::Read),
        3 => any::<u8>().prop_map(Ask::Write),
        1 => (0..2_u32).prop_map(Ask::Zero),
        1 => Just(Ask::Discard),
        1 => Just(Ask::Flush),
        1 => Just(Ask::Reset),
    ];
    prop::collection::vec((0u64..200, 1u32..56, ask), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_requests_to_an_image_leave_what_a_disk_would_hold(
        asks in asks(),
        direct: bool,
        skew in prop::sample::select(&[0_u64, 0x200, 0x333][..]),
    ) {
        let files = Files::new();
        let mut model = files.content();
        prop_assert!(model[..SIZE / 2].iter().all(|byte| *byte == 7));
        let mut rig = files.rig(false, direct);
        let mut queue = start(&mut rig);
        for (sector, sectors, ask) in asks {
            let (from, bytes) = (usize::try_from(sector).unwrap() * 512, sectors * 512);
            let held = &mut model[from..][..bytes as usize];
            let status = match ask {
                Ask::Read => {
                    let status = request(&mut rig, &mut queue, 0, sector, &[(HIGH + skew, bytes, WRITE)]).0;
                    prop_assert!(rig.guest.read(HIGH + skew, held.len()) == held);
                    status
                }
                Ask::Write(seed) => {
                    held.copy_from_slice(&pattern(held.len(), seed));
                    rig.guest.write(BUFFER + 0x1000 + skew, held);
                    request(&mut rig, &mut queue, 1, sector, &[(BUFFER + 0x1000 + skew, bytes, 0)]).0
                }
                Ask::Zero(unmap) => {
                    held.fill(0);
                    rig.guest.write(BUFFER, &segment(sector, sectors, unmap));
                    request(&mut rig, &mut queue, 13, 0, &[(BUFFER, 16, 0)]).0
                }
                Ask::Discard => {
                    rig.guest.write(BUFFER, &segment(sector, sectors, 0));
                    let status = request(&mut rig, &mut queue, 11, 0, &[(BUFFER, 16, 0)]).0;
                    request(&mut rig, &mut queue, 0, sector, &[(HIGH, bytes, WRITE)]);
                    let now = rig.guest.read(HIGH, held.len());
                    prop_assert!(now.iter().zip(&*held).all(|(now, before)| [0, *before].contains(now)));
                    held.copy_from_slice(&now);
                    status
                }
                Ask::Flush => {
                    let status = request(&mut rig, &mut queue, 4, 0, &[]).0;
                    prop_assert!(files.content() == model, "what was flushed is in the file");
                    status
                }
                Ask::Reset => {
                    rig.set(offset::STATUS, 0);
                    rig.guest.pmap.reset().expect("no page is pinned after a reset");
                    queue = start(&mut rig);
                    OK
                }
            };
            prop_assert_eq!(status, OK);
        }
    }
}

/// What a guest wrote and did not flush is lost by no orderly end of its VM.
#[test]
fn what_was_written_without_a_flush_is_there_after_the_end() {
    for direct in [false, true] {
        let files = Files::new();
        let image = Arc::new(files.open(true, direct));
        let written = WrittenImages::new(vec![("disk0".to_owned(), Arc::clone(&image))]);
        let mut rig = rig_of(&image, false);
        let mut queue = start(&mut rig);
        let mut model = files.content();
        model[16 * 512..][..32768].copy_from_slice(&pattern(32768, 5));
        rig.guest.write(BUFFER, &pattern(32768, 5));
        assert_eq!(request(&mut rig, &mut queue, 1, 16, &[(BUFFER, 32768, 0)]), (OK, 1));
        assert_eq!(written.saved(ExitReason::Shutdown), ExitReason::Shutdown);
        // The process ends here, with its devices as they are.
        assert!(files.content() == model);
    }
}

#[test]
fn an_image_that_cannot_be_saved_is_told_with_the_end() {
    for (reason, part) in [
        (ExitReason::Shutdown, "the guest has shut down, but what its guest wrote"),
        (ExitReason::Crashed("panic".to_owned()), "panic; what its guest wrote"),
        (ExitReason::Failed("no kernel".to_owned()), "no kernel; what its guest wrote"),
    ] {
        let memfd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        let file = File::from(memfd);
        create(&FileStorage::new(file.try_clone().unwrap()).unwrap(), 1 << 20, CLUSTER, None).unwrap();
        let kept = file.try_clone().unwrap();
        let image = Arc::new(chain::image([(file, Format::Qcow2)].into_iter(), true).unwrap());
        image.write(&[7; 512], 0).unwrap();
        rustix::fs::fcntl_add_seals(&kept, SealFlags::WRITE).unwrap();
        let written = WrittenImages::new(vec![("disk0".to_owned(), image)]);
        let told = match written.saved(reason.clone()) {
            ExitReason::Failed(text) | ExitReason::Crashed(text) => text,
            ExitReason::Shutdown => panic!("it is not saved"),
        };
        assert!(told.contains(part) && told.contains("(disk0: "), "{told}");
        assert_eq!(written.saved(reason.clone()), reason, "told once");
    }
}

/// VIRTIO 1.2, section 5.2.6.2: its driver takes the disk for one without a cache.
#[test]
fn a_driver_that_knows_no_flush_has_its_writes_durable_before_they_are_answered() {
    let files = Files::new();
    let mut rig = files.rig(false, true);
    let mut queue = rig.set_up(feature::EVENT_IDX, &[QUEUE_SIZE]).remove(0);
    rig.go();
    let mut model = files.content();
    for (sector, seed) in [(0, 1), (100, 2), (3, 3)] {
        let held = &mut model[sector * 512..][..8192];
        held.copy_from_slice(&pattern(8192, seed));
        rig.guest.write(BUFFER, held);
        let data = [(BUFFER, 4096, 0), (BUFFER + 4096, 4096, 0)];
        assert_eq!(request(&mut rig, &mut queue, 1, sector as u64, &data), (OK, 1));
        assert!(files.content() == model, "{sector}");
    }
    for (kind, flags) in [(13, 0), (13, 1), (11, 0)] {
        model[..16 * 512].fill(9);
        rig.guest.write(BUFFER, &model[..16 * 512]);
        assert_eq!(request(&mut rig, &mut queue, 1, 0, &[(BUFFER, 8192, 0)]), (OK, 1));
        model[..16 * 512].fill(0);
        rig.guest.write(BUFFER, &segment(0, 16, flags));
        assert_eq!(request(&mut rig, &mut queue, kind, 0, &[(BUFFER, 16, 0)]), (OK, 1));
        assert!(files.content() == model, "{kind} {flags}");
    }
    assert_eq!(request(&mut rig, &mut queue, 0, 100, &[(HIGH, 8192, WRITE)]), (OK, 8193));
}

#[test]
fn many_requests_at_once_are_all_answered_before_a_reset() {
    let files = Files::new();
    let mut rig = files.rig(false, true);
    for round in 0..3 {
        let mut queue = start(&mut rig);
        rig.guest.write(BUFFER, &pattern(32768, round));
        rig.guest.write(HEADER, &header(1, 0));
        for _ in 0..60 {
            queue.add(&rig.guest, &[(HEADER, 16, 0), (BUFFER, 32768, 0), (STATUS, 1, WRITE)]);
        }
        rig.kick(&queue);
        rig.set(offset::STATUS, 0);
        rig.guest.pmap.reset().expect("no page is pinned after a reset");
        let mut queue = start(&mut rig);
        rig.guest.write(BUFFER, &pattern(32768, round + 100));
        assert_eq!(request(&mut rig, &mut queue, 1, 64, &[(BUFFER, 32768, 0)]), (OK, 1));
        assert_eq!(request(&mut rig, &mut queue, 0, 64, &[(HIGH, 32768, WRITE)]), (OK, 32769));
        assert!(rig.guest.read(HIGH, 32768) == pattern(32768, round + 100));
        rig.set(offset::STATUS, 0);
        rig.guest.pmap.reset().unwrap();
    }
}

#[test]
fn a_read_only_image_is_not_written() {
    let files = Files::new();
    let before = std::fs::read(files.directory.path().join("top")).unwrap();
    let mut rig = files.rig(true, false);
    assert_eq!(rig.offered() & (bit::RO | bit::DISCARD | bit::WRITE_ZEROES), bit::RO);
    assert_eq!(block_sizes(&mut rig), (512, 4096));
    let mut queue = start(&mut rig);
    rig.guest.write(BUFFER, &segment(0, 8, 0));
    for kind in [1, 11, 13] {
        assert_eq!(request(&mut rig, &mut queue, kind, 0, &[(BUFFER, 16, 0)]).0, IO_ERROR, "{kind}");
    }
    assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(BUFFER, 4096, WRITE)]), (OK, 4097));
    assert!(rig.guest.read(BUFFER, 4096).iter().all(|byte| *byte == 7));
    assert_eq!(request(&mut rig, &mut queue, 4, 0, &[]).0, OK);
    assert!(std::fs::read(files.directory.path().join("top")).unwrap() == before);
}

#[test]
fn a_damaged_image_answers_with_errors() {
    let files = Files::new();
    let top = File::options().write(true).open(files.directory.path().join("top")).unwrap();
    // The first-level table, in the fourth cluster, names a table within a cluster.
    top.write_all_at(&[0x80, 0, 0, 0, 0, 0, 2, 0], 3 * CLUSTER).unwrap();
    let mut rig = files.rig(true, false);
    let mut queue = start(&mut rig);
    assert_eq!(request(&mut rig, &mut queue, 0, 0, &[(BUFFER, 4096, WRITE)]).0, IO_ERROR);
    assert_eq!(request(&mut rig, &mut queue, 8, 0, &[(BUFFER, 20, WRITE)]), (OK, 21), "it goes on");
}
