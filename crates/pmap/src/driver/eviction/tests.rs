use super::*;
use crate::tests::harness::paged;
use crate::tests::paging::{noise, put};

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
