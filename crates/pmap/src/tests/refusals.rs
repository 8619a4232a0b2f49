//! The kernel refuses a call, for want of memory or of mappings: nothing that the guest wrote is
//! lost, and what is counted is what is there.

use std::time::Duration;

use plimsoll_units::{Pages, Ppn};

use super::frames::Frames;
use super::harness::{Served, paged};
use super::paging::{get, noise, put, take_all, text};
use crate::{PpnRange, Release, ScanOrder};

/// Most calls that the course below can take: it takes some 740.
const MOST: u32 = 5000;
/// One call of so many is refused in turn. All of them take a minute.
const EACH: usize = 4;

#[test]
fn no_write_is_lost_whichever_call_is_refused() {
    for calls in (0..MOST).step_by(EACH) {
        let host = Frames::new();
        let [a, b] = [0, 1].map(|id| {
            let vm = paged(3, 4096, true, 100, 3000);
            host.join(id, &vm);
            vm
        });
        a.pmap.vm().memory.kernel().refuse_after(calls);
        course(&host, &a, &b);
        let refused = a.pmap.vm().memory.kernel().has_refused();
        a.pmap.vm().memory.kernel().refuse_after(u32::MAX);
        host.check(&[&a, &b]);
        a.audit();
        if !refused {
            return;
        }
    }
    panic!("the course takes more than {MOST} calls");
}

/// Everything that can become of a page becomes of some, and each has its content afterwards.
fn course(host: &Frames, a: &Served, b: &Served) {
    let content = |ppn: u64| match ppn % 4 {
        0 => vec![0; 4096],
        1 => text(ppn),
        _ => noise(ppn + 1),
    };
    let check = |what: &str| (0..240).for_each(|ppn| assert_eq!(get(a, ppn), content(ppn), "{what}: {ppn}"));
    for vm in [a, b] {
        (0..240).for_each(|ppn| put(vm, ppn, &content(ppn)));
    }
    for _ in 0..2 {
        for (id, vm) in [a, b].into_iter().enumerate() {
            while !vm.pmap.scan(ScanOrder { break_large: true }, Duration::from_secs(60)).pass_ended {}
            host.deliver(id, vm);
        }
        host.deliver(0, a);
    }
    check("shared");
    (0..240).step_by(5).for_each(|ppn| put(a, ppn, &content(ppn)));
    take_all(a);
    check("paged out");
    take_all(a);
    check("paged out again");
    // More than half of a chunk, so that it is worth promoting.
    (240..512).for_each(|ppn| put(a, ppn, &noise(ppn)));
    a.pmap.promote(8);
    check("promoted");
    take_all(a);
    check("paged out as a large chunk");
    a.pmap.release(&[PpnRange::new(Ppn(240), Pages(272))], Release::Reported);
    check("released beside it");
    // A page that the kernel did not take back keeps its content.
    (240..512).for_each(|ppn| assert!([vec![0; 4096], noise(ppn)].contains(&get(a, ppn)), "page {ppn}"));
}
