//! Disks that grow while their guest uses them.

use std::sync::mpsc;
use std::time::Duration;

use plimsoll_image::create::create;
use plimsoll_image::{FileStorage, Format, Image, chain};

use super::super::super::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use super::*;

fn rig_of(medium: Medium) -> (Rig, BlockHandle) {
    let mut handle = None;
    let rig = Rig::new(|memory, notices| {
        let rate = RateLimit::default();
        let config = BlockConfig { medium, read_only: false, rate, id: "a-disk".to_owned(), io_uring: true };
        let block = Block::new("disk0", config, memory, notices).unwrap();
        handle = Some(block.handle());
        block
    });
    (rig, handle.unwrap())
}

fn raw() -> (Rig, BlockHandle, File) {
    let (file, kept) = file();
    let geometry = Geometry::of(&file).unwrap();
    let (rig, handle) = rig_of(Medium::File(file, geometry));
    (rig, handle, kept)
}

fn image(file: &File) -> Image<FileStorage> {
    chain::image([(file.try_clone().unwrap(), Format::Qcow2)].into_iter(), true).unwrap()
}

fn grow(handle: &BlockHandle, size: u64) -> Result<u64, String> {
    let (sender, receiver) = mpsc::channel();
    handle.grow(size, move |grown| sender.send(grown).unwrap());
    receiver.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// Sectors that the guest is shown.
fn sectors(rig: &mut Rig) -> u64 {
    let mut sectors = [0; 8];
    rig.transport.read(offset::CONFIG, &mut sectors);
    u64::from_le_bytes(sectors)
}

/// Writes the disk's sector `sector` and reads it back.
fn use_sector(rig: &mut Rig, queue: &mut Queue, sector: u64) -> u8 {
    rig.guest.write(BUFFER, &pattern(512, 9));
    let written = request(rig, queue, 1, sector, &[(BUFFER, 512, 0)]).0;
    if written == OK {
        assert_eq!(request(rig, queue, 0, sector, &[(HIGH, 512, WRITE)]), (OK, 513));
        assert_eq!(rig.guest.read(HIGH, 512), pattern(512, 9));
    }
    written
}

/// The guest is told of `grown` bytes, and uses all of them at once. Returns its queue.
fn grows(rig: &mut Rig, handle: &BlockHandle, grown: u64) -> Queue {
    let mut queue = start(rig);
    let before = sectors(rig);
    assert_eq!(use_sector(rig, &mut queue, before - 1), OK);
    assert_eq!(use_sector(rig, &mut queue, before), IO_ERROR);
    rig.set(offset::INTERRUPT_ACK, USED_BUFFER | CONFIG_CHANGE);
    let generation = rig.get(offset::CONFIG_GENERATION);
    assert_eq!(grow(handle, grown), Ok(grown));
    assert_eq!(rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE, CONFIG_CHANGE);
    assert_ne!(rig.get(offset::CONFIG_GENERATION), generation);
    assert_eq!(sectors(rig), grown / SECTOR);
    assert_eq!(use_sector(rig, &mut queue, before), OK);
    assert_eq!(use_sector(rig, &mut queue, grown / SECTOR - 1), OK);
    assert_eq!(use_sector(rig, &mut queue, grown / SECTOR), IO_ERROR);
    queue
}

#[test]
fn a_raw_disk_grows_with_its_file_while_its_guest_uses_it() {
    let (mut rig, handle, kept) = raw();
    kept.set_len(2 * SECTORS * SECTOR).unwrap();
    grows(&mut rig, &handle, 2 * SECTORS * SECTOR);
}

#[test]
fn an_image_grows_and_is_as_long_when_it_is_opened_again() {
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    create(&FileStorage::new(file.try_clone().unwrap()).unwrap(), 1 << 20, 4096, None).unwrap();
    let (mut rig, handle) = rig_of(Medium::Image(Arc::new(image(&file))));
    let mut queue = grows(&mut rig, &handle, 8 << 20);
    assert_eq!(request(&mut rig, &mut queue, 4, 0, &[]).0, OK);
    drop(rig);
    let again = image(&file);
    let mut last = [0; 512];
    again.read(&mut last, (8 << 20) - 512).unwrap();
    assert_eq!((again.size(), &last[..]), (8 << 20, &pattern(512, 9)[..]));
}

#[test]
fn a_disk_that_does_not_grow_stays_as_it_is_and_says_why() {
    let (mut rig, handle, kept) = raw();
    let mut queue = start(&mut rig);
    rig.set(offset::INTERRUPT_ACK, CONFIG_CHANGE);
    let size = SECTORS * SECTOR;
    assert!(grow(&handle, 2 * size).unwrap_err().contains("its file has"));
    kept.set_len(size / 2).unwrap();
    assert!(grow(&handle, size / 2).unwrap_err().contains("cannot shrink"));
    assert_eq!((sectors(&mut rig), rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE), (SECTORS, 0));
    assert_eq!(use_sector(&mut rig, &mut queue, 0), OK);
    let file = tempfile::tempfile_in("/var/tmp").unwrap();
    create(&FileStorage::new(file.try_clone().unwrap()).unwrap(), 1 << 20, 4096, None).unwrap();
    let (mut rig, handle) = rig_of(Medium::Image(Arc::new(image(&file))));
    assert!(grow(&handle, 512).unwrap_err().contains("cannot shrink"));
    assert_eq!(sectors(&mut rig), (1 << 20) / SECTOR);
}

/// The rest of a block of the storage could not be written.
#[test]
fn a_disk_past_the_page_cache_grows_by_whole_blocks() {
    let (file, kept) = file();
    let direct = Some(Alignment { memory: 512, block: 4096 });
    let (mut rig, handle) = rig_of(Medium::File(file, Geometry { logical: 512, direct }));
    let mut queue = start(&mut rig);
    let size = SECTORS * SECTOR;
    kept.set_len(2 * size + 512).unwrap();
    assert!(grow(&handle, 2 * size + 512).unwrap_err().contains("in whole blocks"));
    assert_eq!(sectors(&mut rig), SECTORS);
    assert_eq!(grow(&handle, 2 * size), Ok(2 * size));
    assert_eq!(sectors(&mut rig), 2 * SECTORS);
    assert_eq!(use_sector(&mut rig, &mut queue, 2 * SECTORS - 1), OK);
    assert_eq!(use_sector(&mut rig, &mut queue, 2 * SECTORS), IO_ERROR);
}

#[test]
fn a_driver_that_reads_a_size_before_it_is_ready_hears_of_what_has_changed_since() {
    let (mut rig, handle, kept) = raw();
    for round in 2..4 {
        rig.set_up(feature::EVENT_IDX, &[QUEUE_SIZE]);
        let (read, generation) = (sectors(&mut rig), rig.get(offset::CONFIG_GENERATION));
        kept.set_len(round * SECTORS * SECTOR).unwrap();
        assert_eq!(grow(&handle, round * SECTORS * SECTOR), Ok(round * SECTORS * SECTOR));
        rig.go();
        rig.wait_for("its driver is told", |rig| rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE != 0);
        assert_ne!(rig.get(offset::CONFIG_GENERATION), generation);
        assert_eq!((read, sectors(&mut rig)), ((round - 1) * SECTORS, round * SECTORS));
    }
    // A driver that comes after that has nothing to hear.
    start(&mut rig);
    rig.transport.barrier();
    assert_eq!(rig.get(offset::INTERRUPT_STATUS) & CONFIG_CHANGE, 0);
}

#[test]
fn a_disk_that_grows_without_a_driver_shows_the_next_one_its_size() {
    let (mut rig, handle, kept) = raw();
    kept.set_len(2 * SECTORS * SECTOR).unwrap();
    assert_eq!(grow(&handle, 2 * SECTORS * SECTOR), Ok(2 * SECTORS * SECTOR));
    assert_eq!(rig.get(offset::INTERRUPT_STATUS), 0, "there is no driver to interrupt");
    let mut queue = start(&mut rig);
    assert_eq!(sectors(&mut rig), 2 * SECTORS);
    assert_eq!(use_sector(&mut rig, &mut queue, 2 * SECTORS - 1), OK);
}
