//! Switching the defects of `mutation.rs` on, and those that are in a test itself.

use plimsoll_units::Bytes;
use vm_memory::GuestAddress;

use crate::address::Place;
use crate::content::Completion;
use crate::content::swap::defects::BeforeCompletion;
use crate::mutation::Mutation;
use crate::page::{Backing, PageState, Step, Touch};
use crate::pmap::Pmap;
use crate::sync::{Arc, Weak};
use crate::transition::Vm;
use crate::{Intent, IoGuard};

impl Pmap {
    /// Switches a deliberate defect on, or off again.
    pub(crate) fn mutate(&self, mutation: Option<Mutation>) {
        let vm = self.vm();
        vm.memory.kernel().set(mutation);
        vm.account().set(mutation);
        vm.touches.set_uncounted(mutation == Some(Mutation::UncountedTouch));
        if let Some(swap) = vm.content.swap() {
            swap.mutate(mutation);
            let weak = Arc::downgrade(vm);
            let blind = mutation == Some(Mutation::BlindCompletion);
            swap.probe(blind.then(|| -> BeforeCompletion {
                std::sync::Arc::new(move |completion: &Completion| expect_completion(&weak, completion))
            }));
        }
    }

    /// The defect that is switched on.
    pub(crate) fn mutation(&self) -> Option<Mutation> {
        self.vm().memory.kernel().active()
    }
}

/// Pins as a device does; under [`Mutation::UnlockedIo`] the device unlocks the pages at once.
pub(crate) fn pin(pmap: &Arc<Pmap>, ranges: &[(GuestAddress, Bytes)], intent: Intent) -> IoGuard {
    let mut guard = pmap.pin(ranges, intent).unwrap();
    if pmap.mutation() == Some(Mutation::UnlockedIo) {
        guard.unlock();
    }
    guard
}

/// Makes a page what it was when the I/O began that has ended, whatever it is by now.
fn expect_completion(vm: &Weak<Vm>, completion: &Completion) {
    let Some(vm) = vm.upgrade() else { return };
    let (owner, slot, read) = match completion {
        Completion::Read(read) => (read.owner, read.slot, true),
        Completion::Written(written) => (written.owner, written.slot, false),
    };
    let place = Place::of(owner);
    let mut chunk = vm.chunk(place.chunk);
    let before = chunk.tally();
    let Backing::Small(table) = &mut chunk.backing else { return };
    let expected = match table.get(place.slot) {
        PageState::Arriving { from, .. } if read && from == slot => return,
        _ if read => PageState::Arriving { from: slot, touch: Touch::ReadAhead },
        _ => PageState::Leaving(slot),
    };
    table.set(place.slot, expected, Step::Defect);
    // As the transitions do: the end of a write changes nothing that counts.
    if read {
        vm.record(before, &chunk);
    }
}
