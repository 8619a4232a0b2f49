//! Real second-level page faults on guest memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use plimsoll_units::{Pages, Ppn};

use super::harness::{DEADLINE, Served, eventually, served};
use super::vcpu::Guest;
use crate::{PpnRange, Release, Sampler};

const CHUNKS: u64 = 16;

/// Runs `test` with a guest whose memory starts with a grant of `grant` pages.
fn with_guest(grant: u64, huge_pages: bool, test: impl FnOnce(&Served, Guest)) {
    let vm = served(CHUNKS + 1, grant, huge_pages);
    if let Some(guest) = Guest::new(&vm.pmap) {
        test(&vm, guest);
        vm.audit();
    }
}

#[test]
fn a_guest_waits_for_a_grant_and_goes_on_with_it() {
    with_guest(1024, true, |vm, mut guest| {
        std::thread::scope(|scope| {
            scope.spawn(|| guest.write(0, 4 * 512, 1));
            eventually("the guest needs a third chunk", || vm.source.wanted() == Pages(512));
            assert_eq!(vm.stats().held, Pages(1024));
            vm.pmap.add_grant(Pages(512));
            eventually("the guest needs a fourth chunk", || vm.stats().waits == 2);
            assert_eq!(vm.stats().held, Pages(1536));
            // No more than one page is left: the last chunk is filled page by page.
            vm.pmap.add_grant(Pages(1));
            eventually("the guest makes do with pages", || vm.stats().chunks_small == 1);
            vm.pmap.add_grant(Pages(511));
        });
        assert_eq!(guest.differing(0, 4 * 512, 1), 0);
        assert_eq!(vm.stats().held, Pages(2048));
    });
}

#[test]
fn what_a_guest_gives_back_is_zero_and_nothing_else_is() {
    for huge_pages in [true, false] {
        with_guest(CHUNKS * 512, huge_pages, |vm, mut guest| {
            guest.write(0, 4 * 512, 7);
            vm.pmap.release(&[PpnRange::new(Ppn(500), Pages(1024))], Release::Ballooned);
            vm.audit();
            assert_eq!(guest.differing(0, 4 * 512, 7), 1024);
            vm.pmap.reset().unwrap();
            assert_eq!(vm.stats().held, Pages::ZERO);
            assert_eq!(guest.differing(0, 4 * 512, 7), 4 * 512);
        });
    }
}

#[test]
fn a_running_guest_loses_nothing_to_releases_beside_its_pages() {
    with_guest(CHUNKS * 512, true, |vm, mut guest| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The guest keeps the lower half of each chunk; the upper half it writes and gives back
            // at once.
            scope.spawn(|| {
                for i in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let range = PpnRange::new(Ppn(256 + (i % CHUNKS) * 512), Pages(256));
                    let how = if i % 3 == 0 { Release::Ballooned } else { Release::Reported };
                    vm.pmap.release(&[range], how);
                }
            });
            for round in 1..=6 {
                for chunk in 0..CHUNKS {
                    guest.write(chunk * 512, 512, round);
                }
                for chunk in 0..CHUNKS {
                    assert_eq!(guest.differing(chunk * 512, 256, round), 0, "round {round}, chunk {chunk}");
                }
            }
            done.store(true, Ordering::SeqCst);
        });
    });
}

#[test]
fn a_running_guest_loses_nothing_to_sampling_and_is_seen_to_run() {
    with_guest(CHUNKS * 512, true, |vm, mut guest| {
        guest.write(0, CHUNKS * 512, 0);
        let (done, touched) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sampler = Sampler::new(Arc::clone(&vm.pmap), 16);
                while !done.load(Ordering::SeqCst) {
                    sampler.begin();
                    std::thread::yield_now();
                    touched.fetch_add(sampler.seen().chunks.touched, Ordering::SeqCst);
                }
            });
            let begin = Instant::now();
            let mut rounds = 1..;
            // However seldom a busy machine lets the two run at the same time.
            while let Some(round) =
                rounds.next().filter(|&round| round <= 40 || touched.load(Ordering::SeqCst) == 0)
            {
                guest.write(0, CHUNKS * 512, round);
                let differing = guest.differing(0, CHUNKS * 512, round);
                let late = begin.elapsed() > DEADLINE;
                if differing > 0 || late {
                    done.store(true, Ordering::SeqCst);
                }
                assert_eq!((differing, late), (0, false), "round {round}");
            }
            done.store(true, Ordering::SeqCst);
        });
        assert_eq!(vm.stats().chunks_large, CHUNKS);
    });
}
