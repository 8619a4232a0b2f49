mod course;

use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

use plimsoll_sys::task::Task as Request;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;

/// Longest wait for anything that should happen at once. Generous: the machine may be busy with
/// other tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// A swap file of `slots` pages on a disk, without a name, with direct I/O where the file system
/// has it.
pub(crate) fn space(slots: u64, encrypt: bool) -> SwapSpace {
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    file.as_file().set_len(slots * PAGE_SIZE).unwrap();
    let mut options = File::options();
    options.read(true).write(true);
    let direct = options.clone().custom_flags(libc::O_DIRECT).open(file.path());
    let opened = direct.or_else(|_| options.open(file.path())).unwrap();
    SwapSpace { file: opened.into(), slots: Pages(slots), encrypt }
}

type MakeEngine = fn(File, &Event) -> Engine;
const ENGINES: [MakeEngine; 2] = [Engine::new, Engine::worker];

/// Waits until the descriptor is readable, then collects.
fn collect(swap: &Swap) -> Vec<Completion> {
    let timeout = rustix::time::Timespec { tv_sec: DEADLINE.as_secs().cast_signed(), tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(swap, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing happens");
    swap.completions()
}

fn collect_some(swap: &Swap) -> Vec<Completion> {
    let end = Instant::now() + DEADLINE;
    loop {
        let completions = collect(swap);
        if !completions.is_empty() {
            return completions;
        }
        assert!(Instant::now() < end, "nothing ends");
    }
}

fn settle(swap: &Swap) {
    while !swap.is_idle() {
        drop(collect(swap));
    }
}

fn content(seed: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64).to_le_bytes());
    }
    page
}

fn buffer(swap: &Swap, seed: u64) -> Buffer {
    let mut buffer = swap.buffer().unwrap();
    *buffer = content(seed);
    buffer
}

/// Writes contents 0, 1, 2 ... to `count` new slots.
fn write(swap: &Swap, count: u16) -> Vec<SwapSlot> {
    let slots = swap.reserve(count);
    assert_eq!(slots.len(), usize::from(count));
    swap.write((0..).zip(&slots).map(|(seed, &slot)| (slot, seed, buffer(swap, seed))).collect());
    slots
}

/// Nothing is in flight, and nothing has leaked.
fn adds_up(swap: &Swap, used: u64, slots: u64) {
    settle(swap);
    assert_eq!(swap.free_slots(), Pages(slots - used));
    assert_eq!(swap.shared.write_buffers.free_buffers(), WRITE_BUFFERS);
    assert_eq!(swap.shared.schedule.lock().free_read_buffers(), READ_BUFFERS);
    assert!(swap.shared.book.lock().leaving.is_empty());
}

fn read_error(completion: &Completion) -> Option<i32> {
    let Completion::Read(read) = completion else { panic!("{completion:?}") };
    read.result.as_ref().err().and_then(io::Error::raw_os_error)
}

fn write_error(completion: &Completion) -> Option<i32> {
    let Completion::Written(written) = completion else { panic!("{completion:?}") };
    written.result.as_ref().err().and_then(io::Error::raw_os_error)
}

#[test]
fn the_file_holds_slot_n_at_page_n() {
    for engine in ENGINES {
        let space = space(10, false);
        let file = File::from(space.file.try_clone().unwrap());
        let swap = Swap::with(space, engine).unwrap();
        let slots = write(&swap, 5);
        settle(&swap);
        for (seed, slot) in (0..).zip(slots) {
            assert!(*page_of(&file, slot) == content(seed));
        }
    }
}

/// What the file holds in a slot, in an aligned buffer, which direct I/O needs.
fn page_of(file: &File, slot: SwapSlot) -> mmap::MappedPage {
    let mut page = mmap::map_pages(1).unwrap().remove(0);
    file.read_exact_at(page.as_mut_slice(), u64::from(slot.0) * PAGE_SIZE).unwrap();
    page
}

#[test]
fn an_encrypted_file_shows_nothing_and_not_which_pages_are_equal() {
    for engine in ENGINES {
        let space = space(2, true);
        let file = File::from(space.file.try_clone().unwrap());
        let swap = Swap::with(space, engine).unwrap();
        let slots = swap.reserve(2);
        swap.write(slots.iter().map(|&slot| (slot, 0, buffer(&swap, 9))).collect());
        let mut back = [0; PAGE];
        assert!(swap.pending(slots[1], &mut back) && back == content(9), "the plain content");
        settle(&swap);
        let (first, second) = (page_of(&file, slots[0]), page_of(&file, slots[1]));
        assert!(*first != content(9) && *second != content(9) && *first != *second);
        assert!(
            !first.windows(16).any(|bytes| content(9).windows(16).step_by(16).any(|plain| plain == bytes))
        );
        swap.read(slots[0], &[0, 0]);
        let read = collect_all(&swap);
        assert_eq!(read.len(), 2);
        for completion in &read {
            let Completion::Read(read) = completion else { panic!("{completion:?}") };
            assert!(**read.result.as_ref().unwrap() == content(9));
        }
    }
}

#[test]
fn a_slot_freed_in_flight_is_not_reused_until_its_completion_is_dropped() {
    let swap = Swap::new(space(1, false)).unwrap();
    swap.faults().hold();
    let slot = write(&swap, 1)[0];
    swap.free(slot);
    assert_eq!((swap.completions().len(), swap.faults().held()), (0, 1));
    assert_eq!(swap.reserve(1), []);
    swap.faults().release();
    let written = collect_some(&swap);
    assert_eq!(swap.reserve(1), [], "the completion still holds the slot");
    assert!(swap.pending(slot, &mut [0; PAGE]));
    drop(written);
    assert!(!swap.pending(slot, &mut [0; PAGE]));
    assert_eq!(swap.reserve(1), [slot]);
    swap.free(slot);
    adds_up(&swap, 0, 1);
}

#[test]
fn a_write_error_gives_the_content_back() {
    for (encrypt, full) in [(false, false), (true, true)] {
        let swap = Swap::new(space(3, encrypt)).unwrap();
        let faults = swap.faults();
        if full {
            faults.fill()
        } else {
            faults.fail_writes(0, 1)
        }
        let slots = write(&swap, 3);
        let ended = collect_some(&swap);
        assert_eq!(ended.len(), 3, "all that were written together");
        for (seed, (slot, completion)) in (0..).zip(slots.iter().zip(&ended)) {
            assert_eq!(write_error(completion), Some(if full { libc::ENOSPC } else { libc::EIO }));
            let mut back = [0; PAGE];
            assert!(swap.pending(*slot, &mut back) && back == content(seed));
            swap.free(*slot);
        }
        drop(ended);
        adds_up(&swap, 0, 3);
        faults.heal();
        write(&swap, 3);
        assert!(collect_all(&swap).iter().all(|completion| write_error(completion).is_none()));
    }
}

#[test]
fn pages_that_leave_one_by_one_are_written_together() {
    let swap = Swap::new(space(8, false)).unwrap();
    swap.faults().fail_writes(0, 1);
    for (owner, slot) in (0..).zip(swap.reserve(8)) {
        swap.write(vec![(slot, owner, buffer(&swap, owner))]);
    }
    let ended = collect_all(&swap);
    assert!(ended.iter().all(|completion| write_error(completion) == Some(libc::EIO)), "one write for all");
}

#[test]
fn a_bad_sector_does_no_harm_to_its_neighbours() {
    let swap = Swap::new(space(8, false)).unwrap();
    let slots = write(&swap, 8);
    settle(&swap);
    swap.faults().fail_read_at(slots[3]);
    swap.read(slots[0], &[0, 1, 2, 3, 4, 5, 6, 7]);
    let ended = collect_all(&swap);
    assert_eq!(ended.len(), 8);
    for completion in &ended {
        let Completion::Read(read) = completion else { panic!("{completion:?}") };
        assert_eq!(read_error(completion), (read.slot == slots[3]).then_some(libc::EIO));
        assert!(read.result.as_ref().is_err() || **read.result.as_ref().unwrap() == content(read.owner));
    }
    drop(ended);
    adds_up(&swap, 8, 8);
}

#[test]
fn the_end_of_the_file_is_an_error_and_not_zeros() {
    for engine in ENGINES {
        let space = space(4, false);
        let file = File::from(space.file.try_clone().unwrap());
        let swap = Swap::with(space, engine).unwrap();
        let slots = write(&swap, 4);
        settle(&swap);
        file.set_len(2 * PAGE_SIZE).unwrap();
        swap.read(slots[0], &[0, 1, 2, 3]);
        for completion in collect_all(&swap) {
            let Completion::Read(read) = completion else { panic!("{completion:?}") };
            let kind = read.result.as_ref().err().map(io::Error::kind);
            assert_eq!(kind, (read.owner >= 2).then_some(io::ErrorKind::UnexpectedEof));
        }
        adds_up(&swap, 4, 4);
    }
}

#[test]
fn more_reads_than_buffers_wait_for_those() {
    let slots = 2 * READ_BUFFERS as u64;
    let swap = Swap::new(space(slots, false)).unwrap();
    let written = write(&swap, 256);
    settle(&swap);
    let owners: Vec<u64> = (0..slots).collect();
    swap.read(written[0], &owners[..100]);
    swap.read(written[100], &owners[100..]);
    let mut seen = 0;
    while seen < owners.len() {
        // All buffers are out while these live: reading goes on because they come back.
        for completion in collect_some(&swap) {
            let Completion::Read(read) = completion else { panic!("{completion:?}") };
            assert!(**read.result.as_ref().unwrap() == content(read.owner));
            seen += 1;
        }
    }
    adds_up(&swap, slots, slots);
}

#[test]
fn the_pager_waits_for_buffers() {
    let swap = Arc::new(Swap::new(space(256, false)).unwrap());
    swap.faults().hold();
    write(&swap, 256);
    assert!(swap.buffer().is_none() && !swap.wait_for_buffers(1, Duration::ZERO));
    let pager = {
        let swap = Arc::clone(&swap);
        std::thread::spawn(move || swap.wait_for_buffers(256, DEADLINE))
    };
    swap.faults().release();
    settle(&swap);
    assert!(pager.join().unwrap());
}

#[test]
fn a_swap_that_is_dropped_waits_for_its_io() {
    for engine in ENGINES {
        let swap = Swap::with(space(256, false), engine).unwrap();
        write(&swap, 256);
        assert!(swap.completions().len() <= 256);
        drop(swap);
    }
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    let mut space = space(4, false);
    space.slots = Pages(5);
    assert_eq!(Swap::new(space).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_ring_does_nothing_but_read_and_write() {
    let event = Event::new().unwrap();
    let file = File::from(space(1, false).file);
    let Ok(mut ring) = engine::ring(&file, &event) else { return };
    ring.submit((), Request::Sync);
    ring.wait().unwrap();
    assert_eq!(ring.ended().unwrap().2.unwrap_err().raw_os_error(), Some(libc::EACCES));
}

/// Everything that is in flight now, held until all of it has ended.
fn collect_all(swap: &Swap) -> Vec<Completion> {
    let count = swap.shared.book.lock().slots.in_flight();
    let mut ended = Vec::new();
    while ended.len() < count {
        ended.extend(collect_some(swap));
    }
    ended
}
