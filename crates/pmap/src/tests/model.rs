use std::collections::BTreeMap;

use plimsoll_units::{Bytes, Pages, Ppn};
use proptest::prelude::*;

use super::harness::{HIGH, address, served};
use crate::{Inflation, Intent, IoGuard, PpnRange, Release};

/// RAM of the model: two chunks below the hole, one above.
const CHUNKS: u64 = 3;

fn in_ram(ppn: u64) -> bool {
    ppn < (CHUNKS - 1) * 512 || (HIGH.0..HIGH.0 + 512).contains(&ppn)
}

/// What a guest and its devices may do.
#[derive(Clone, Debug)]
enum Action {
    Write(u64, u64),
    Release(Vec<(u64, u64)>, bool),
    Inflate(Vec<(u64, u64)>),
    Flush,
    Deflate(Vec<(u64, u64)>),
    Pin(u64, u64),
    Unpin,
    Reset,
}

/// A page number: mostly RAM, often at the edge of a chunk, sometimes nonsense.
fn ppn() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..CHUNKS * 512 + 20,
        4 => HIGH.0 - 5..HIGH.0 + 517,
        1 => any::<u64>(),
    ]
}

fn ram_ppn() -> impl Strategy<Value = u64> {
    prop_oneof![0..(CHUNKS - 1) * 512, HIGH.0..HIGH.0 + 512]
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let len = prop_oneof![6 => 1u64..4, 3 => 1u64..700, 2 => Just(512u64), 1 => any::<u64>()];
    let aligned = (0..CHUNKS).prop_map(|chunk| (chunk * 512, 512));
    prop::collection::vec(prop_oneof![5 => (ppn(), len), 1 => aligned], 0..12)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (ram_ppn(), 1..u64::MAX).prop_map(|(ppn, value)| Action::Write(ppn, value)),
        4 => (ranges(), any::<bool>()).prop_map(|(ranges, ballooned)| Action::Release(ranges, ballooned)),
        3 => ranges().prop_map(Action::Inflate),
        1 => Just(Action::Flush),
        2 => ranges().prop_map(Action::Deflate),
        2 => (ram_ppn(), 1u64..40).prop_map(|(ppn, pages)| Action::Pin(ppn, pages)),
        2 => Just(Action::Unpin),
        1 => Just(Action::Reset),
    ]
}

/// What guest memory should hold.
#[derive(Default)]
struct Model {
    content: BTreeMap<u64, u64>,
    ballooned: std::collections::BTreeSet<u64>,
    /// Pages gathered by the balloon device and not released yet.
    pending: std::collections::BTreeSet<u64>,
    pins: Vec<(u64, u64)>,
}

impl Model {
    fn busy(&self, ppn: u64) -> bool {
        self.pins.iter().any(|&(start, pages)| (start..start + pages).contains(&ppn))
    }

    fn release(&mut self, ppns: &[u64], ballooned: bool) {
        for &ppn in ppns.iter().filter(|&&ppn| in_ram(ppn)) {
            if !self.busy(ppn) {
                self.content.remove(&ppn);
                if ballooned {
                    self.ballooned.insert(ppn);
                }
            }
        }
    }

    fn inflate(&mut self, ppns: &[u64]) {
        self.pending.extend(ppns.iter().filter(|&&ppn| in_ram(ppn)));
        for start in [0, 512, HIGH.0] {
            let chunk: Vec<_> = (start..start + 512).collect();
            if chunk.iter().all(|ppn| self.pending.contains(ppn)) {
                self.pending.retain(|ppn| !chunk.contains(ppn));
                self.release(&chunk, true);
            }
        }
    }
}

/// The pages of RAM in a list of ranges, one by one.
fn pages(ranges: &[(u64, u64)]) -> Vec<u64> {
    let named = |ppn: &u64| ranges.iter().any(|&(s, n)| s <= *ppn && *ppn < s.saturating_add(n));
    (0..(CHUNKS - 1) * 512).chain(HIGH.0..HIGH.0 + 512).filter(named).collect()
}

fn run(actions: Vec<Action>, huge_pages: bool) -> Result<(), TestCaseError> {
    let vm = served(CHUNKS, CHUNKS * 512, huge_pages);
    let mut inflation = Inflation::new(vm.pmap.clone());
    let mut guards: Vec<IoGuard> = Vec::new();
    let mut model = Model::default();
    for action in actions {
        match action {
            Action::Write(ppn, value) => {
                vm.write(ppn, value);
                model.content.insert(ppn, value);
                model.ballooned.remove(&ppn);
            }
            Action::Release(ranges, ballooned) => {
                let how = if ballooned { Release::Ballooned } else { Release::Reported };
                let list: Vec<_> = ranges.iter().map(|&(s, n)| PpnRange::new(Ppn(s), Pages(n))).collect();
                let busy = pages(&ranges).into_iter().filter(|&ppn| model.busy(ppn)).count();
                prop_assert_eq!(vm.pmap.release(&list, how).busy, Pages(busy as u64));
                model.release(&pages(&ranges), ballooned);
            }
            Action::Inflate(ranges) => {
                // A device hands over page numbers one by one, out of RAM too.
                let mut ppns = pages(&ranges);
                ppns.extend(ranges.iter().map(|&(start, _)| start));
                inflation.inflate(&ppns.iter().rev().copied().map(Ppn).collect::<Vec<_>>());
                model.inflate(&ppns);
            }
            Action::Flush => {
                inflation.flush();
                let pending: Vec<_> = std::mem::take(&mut model.pending).into_iter().collect();
                model.release(&pending, true);
            }
            Action::Deflate(ranges) => {
                let ppns = pages(&ranges);
                inflation.deflate(&ppns.iter().copied().map(Ppn).collect::<Vec<_>>());
                for ppn in ppns {
                    model.ballooned.remove(&ppn);
                    model.pending.remove(&ppn);
                }
            }
            Action::Pin(ppn, pages) => {
                let length = Bytes(pages * 4096 - 1);
                let inside = in_ram(ppn + pages - 1) && (ppn < 1024) == (ppn + pages <= 1024);
                let pinned = vm.pmap.pin(&[(address(ppn), length)], Intent::Use);
                prop_assert_eq!(pinned.is_ok(), inside);
                if let Ok(guard) = pinned {
                    guards.push(guard);
                    model.pins.push((ppn, pages));
                    model.ballooned.retain(|ballooned| !(ppn..ppn + pages).contains(ballooned));
                }
            }
            Action::Unpin => {
                drop(guards.pop());
                model.pins.pop();
            }
            Action::Reset => {
                prop_assert_eq!(vm.pmap.reset().is_ok(), model.pins.is_empty());
                if model.pins.is_empty() {
                    inflation.clear();
                    model = Model::default();
                }
            }
        }
        prop_assert_eq!(vm.stats().ballooned, Pages(model.ballooned.len() as u64));
        prop_assert_eq!(inflation.pending(), Pages(model.pending.len() as u64));
        prop_assert_eq!(vm.pmap.audit(), Ok(()));
    }
    for ppn in pages(&[(0, u64::MAX)]) {
        prop_assert_eq!(vm.read(ppn), model.content.get(&ppn).copied().unwrap_or(0), "page {}", ppn);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_releases_its_other_pages_keep_their_content(
        actions in prop::collection::vec(action(), 1..40), huge_pages in any::<bool>(),
    ) {
        run(actions, huge_pages)?;
    }
}
