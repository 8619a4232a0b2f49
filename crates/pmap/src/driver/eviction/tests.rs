use super::*;
use crate::tests::harness::paged;
use crate::tests::paging::{noise, put, text};

#[test]
fn victims_are_random_among_chunks_that_seem_to_be_used_alike() {
    // Its last chunk is empty.
    let vm = paged(9, 8 * 512, true, 0, 512);
    (0..8).for_each(|chunk| put(&vm, chunk * 512, &noise(chunk)));
    let mut drawn = [0; 8];
    for _ in 0..800 {
        drawn[vm.pmap.eviction().victim().unwrap().0] += 1;
    }
    // Each is drawn 100 times, give or take 30 at four standard deviations and more.
    assert!(drawn.iter().all(|n| (40..160).contains(n)), "{drawn:?}");
}

#[test]
fn a_small_vm_gives_up_when_all_its_chunks_were_tried() {
    assert_eq!([1, 32, 64, 4096].map(most_failures), [4, 32, 64, 64]);
}

#[test]
fn a_batch_that_yields_nothing_ends_the_try_of_its_chunk_and_batches_begin_anywhere() {
    fastrand::seed(0);
    let tries = (0..32).map(|_| {
        let vm = paged(2, 512, true, 512, 0);
        (0..256).for_each(|ppn| put(&vm, ppn, &noise(ppn)));
        (256..512).for_each(|ppn| put(&vm, ppn, &text(ppn)));
        let evict = || {
            let mut state = State::default();
            vm.pmap.eviction().evict(ChunkNo(0), Choice::Idle, Pages::CHUNK, &mut state)
        };
        assert_eq!(evict(), Pages::ZERO, "it was in use");
        (evict(), vm.stats().compressed)
    });
    let tries: Vec<(Pages, Pages)> = tries.collect();
    // A try that begins in the first half, more than a batch before its end, ends there; others
    // come to pages that shrink.
    assert!(tries.contains(&(Pages::ZERO, Pages::ZERO)), "{tries:?}");
    assert!(tries.iter().any(|(freed, packed)| *freed > Pages(100) && *packed > Pages(100)), "{tries:?}");
}
