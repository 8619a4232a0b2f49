use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use proptest::prelude::*;

use super::*;
use crate::mutation::Mutation;

/// What a page of the model is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Leaving,
    Swapped,
    Arriving,
}

/// What should be in each slot in use: the content of this number, which is its owner too.
#[derive(Default)]
struct Model {
    pages: HashMap<SwapSlot, (u64, Doing)>,
    seed: u64,
}

impl Model {
    fn known(&self, from: u64, count: u16) -> Vec<SwapSlot> {
        let mut slots: Vec<SwapSlot> = self.pages.keys().copied().collect();
        slots.sort();
        let skip = usize::try_from(from).unwrap() % slots.len().max(1);
        slots.into_iter().skip(skip).take(count.into()).collect()
    }

    fn write(&mut self, swap: &Swap, count: u16) {
        let mut batch = Vec::new();
        for slot in swap.reserve(count) {
            let Some(mut buffer) = swap.buffer() else {
                swap.free(slot);
                continue;
            };
            self.seed += 1;
            *buffer = content(self.seed);
            let before = self.pages.insert(slot, (self.seed, Doing::Leaving));
            assert!(before.is_none(), "{slot:?} is in use");
            batch.push((slot, self.seed, buffer));
        }
        swap.write(batch);
    }

    fn read(&mut self, swap: &Swap, slots: &[SwapSlot]) {
        let mut run: Vec<(SwapSlot, u64)> = Vec::new();
        for &slot in slots {
            let (owner, doing) = self.pages[&slot];
            if doing != Doing::Swapped || run.last().is_some_and(|&(last, _)| last.plus(1) != slot) {
                break;
            }
            run.push((slot, owner));
            self.pages.insert(slot, (owner, Doing::Arriving));
        }
        if let Some(&(first, _)) = run.first() {
            swap.read(first, &run.iter().map(|&(_, owner)| owner).collect::<Vec<_>>());
        }
    }

    fn free(&mut self, swap: &Swap, slots: &[SwapSlot]) {
        for slot in slots {
            self.pages.remove(slot);
            swap.free(*slot);
        }
    }

    fn look_at_pending(&self, swap: &Swap) {
        for (slot, (owner, doing)) in &self.pages {
            let mut back = [0; PAGE];
            assert_eq!(swap.pending(*slot, &mut back), *doing == Doing::Leaving);
            assert!(*doing != Doing::Leaving || back == content(*owner), "{slot:?}");
        }
    }

    /// Takes note of an end, unless the slot was freed meanwhile. It cannot have been reserved
    /// again.
    fn ended(&mut self, swap: &Swap, completion: Completion) {
        match completion {
            Completion::Written(written) => {
                let Some(&(owner, doing)) = self.pages.get(&written.slot) else { return };
                assert_eq!((owner, doing), (written.owner, Doing::Leaving));
                self.pages.insert(written.slot, (owner, Doing::Swapped));
                if written.result.is_err() {
                    let mut back = [0; PAGE];
                    assert!(swap.pending(written.slot, &mut back) && back == content(owner));
                    self.free(swap, &[written.slot]);
                }
            }
            Completion::Read(read) => {
                let Some(&(owner, doing)) = self.pages.get(&read.slot) else { return };
                assert_eq!((owner, doing), (read.owner, Doing::Arriving));
                self.pages.insert(read.slot, (owner, Doing::Swapped));
                assert!(
                    read.result.is_err() || **read.result.as_ref().unwrap() == content(owner),
                    "{read:?}"
                );
            }
        }
    }
}

/// A random course of writes, reads, frees and faults, in which everything that is read or pending
/// must be what was written, and at whose end nothing has leaked. Returns how many I/Os failed.
fn course(swap: &Swap, slots: u64, steps: &[(u8, u16, u64)]) -> usize {
    let mut model = Model::default();
    let mut failed = 0;
    let mut take = |model: &mut Model, completions: Vec<Completion>| {
        for completion in completions {
            failed += usize::from(match &completion {
                Completion::Read(read) => read.result.is_err(),
                Completion::Written(written) => written.result.is_err(),
            });
            model.ended(swap, completion);
        }
    };
    for &(step, count, from) in steps {
        match step {
            0..=2 => model.write(swap, count),
            3 | 4 => model.read(swap, &model.known(from, count)),
            5 => model.free(swap, &model.known(from, count)),
            6 => model.look_at_pending(swap),
            _ => take(&mut model, swap.completions()),
        }
    }
    while !swap.is_idle() {
        take(&mut model, collect(swap));
    }
    adds_up(swap, model.pages.len() as u64, slots);
    failed
}

fn steps() -> impl Strategy<Value = Vec<(u8, u16, u64)>> {
    prop::collection::vec((0u8..10, 1u16..100, any::<u64>()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_written_is_read(steps in steps(), engine in 0usize..2, encrypt: bool, shorten: bool) {
        let swap = Swap::with(space(300, encrypt), ENGINES[engine]).unwrap();
        if shorten {
            swap.faults().shorten_all();
        }
        prop_assert_eq!(course(&swap, 300, &steps), 0);
    }

    #[test]
    fn nothing_leaks_on_a_failing_device(
        steps in steps(), engine in 0usize..2, after in 0usize..10, count in 1usize..10, full: bool
    ) {
        let swap = Swap::with(space(300, true), ENGINES[engine]).unwrap();
        swap.faults().fail_reads(after, count);
        swap.faults().fail_writes(after, count);
        if full {
            swap.faults().fill();
        }
        course(&swap, 300, &steps);
    }
}

#[test]
fn the_course_notices_a_slot_that_is_reused_in_flight() {
    let noticed = |_| {
        let swap = Swap::new(space(300, false)).unwrap();
        swap.mutate(Some(Mutation::EarlyReuse));
        let step = || (fastrand::u8(..10), fastrand::u16(1..100), fastrand::u64(..));
        let steps: Vec<_> = std::iter::repeat_with(step).take(60).collect();
        std::panic::catch_unwind(AssertUnwindSafe(|| course(&swap, 300, &steps))).is_err()
    };
    assert!((0..50).any(noticed));
}
