use plimsoll_units::{Pages, Ppn};

use super::*;
use crate::address::{PpnRange, SLOTS};
use crate::memory::uffd::Uffd;

/// A page that moves behind guest RAM takes its place in the kernel's order of pages with it. So
/// its new mapping may look like the continuation of the mapping before it, which the kernel then
/// joins with it. If that one is armed it loses its arms: a touch of a missing page of it gets
/// zeros from the kernel, and the content is lost.
#[test]
fn a_page_that_is_set_aside_disarms_no_other() {
    let uffd = Uffd::open().expect("these tests need /dev/userfaultfd or the right to call userfaultfd");
    let memory = Memory::new(&[PpnRange::new(Ppn(0), Pages(512))], uffd, false).unwrap();
    let no = ChunkNo(0);
    let last = SLOTS - 1;
    for slot in [0, 1, last] {
        memory.put(Place { chunk: no, slot }, &[7; PAGE], Access::ReadOnly).unwrap();
    }
    // Out of staging, where page 1 came right behind the page that is the last one now.
    memory.replace_by_copy(no, (0, 2)).unwrap();
    memory.replace_by_copy(no, (last, 1)).unwrap();
    memory.set_aside(no, (1, 1), Spare::of_page(0)).unwrap();
    memory.discard(no, (last, 1)).unwrap();
    memory.put(Place { chunk: no, slot: last }, &[8; PAGE], Access::Full).expect("the last page is armed");
    memory.bring_back(no, (1, 1), Spare::of_page(0)).unwrap();
    let mut page = [0; PAGE];
    memory.read_page(Place { chunk: no, slot: 1 }, &mut page);
    assert_eq!(page, [7; PAGE]);
}
