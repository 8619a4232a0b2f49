use std::collections::BTreeMap;

use plimsoll_units::{Pages, Ppn};

use super::service::serve_freed;
use crate::address::{ChunkNo, PageSet, PpnRange};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::release::{Release, ReleaseOutcome, deflate_in_chunk, release_in_chunk};

/// Gathers a balloon's pages into chunks before they are given back.
///
/// A virtio balloon names pages one by one, 256 at a time, in any order. Given back as they come,
/// they would break up every large chunk on the way. Gathered, 512 pages of one chunk leave an
/// empty chunk for the cost of one call, and its huge page comes back whole. A chunk is released as
/// soon as it is complete; the rest by [`Inflation::flush`], which the balloon device calls when
/// the guest has stopped inflating: at its target, or after a pause.
#[derive(Debug)]
pub struct Inflation {
    vm: Arc<Vm>,
    pending: BTreeMap<ChunkNo, PageSet>,
}

impl Inflation {
    pub(crate) fn over(vm: Arc<Vm>) -> Self {
        Self { vm, pending: BTreeMap::new() }
    }

    /// Takes pages that the guest has put into its balloon; releases the chunks that are complete
    /// with them.
    pub fn inflate(&mut self, ppns: &[Ppn]) -> ReleaseOutcome {
        let (sets, ignored) = self.vm.memory.layout().by_chunk(&ranges(ppns));
        let mut outcome = ReleaseOutcome { ignored, ..ReleaseOutcome::default() };
        for (no, set) in sets {
            let gathered = self.pending.entry(no).or_default();
            *gathered = gathered.union(&set);
            if gathered.is_full() {
                self.pending.remove(&no);
                outcome += release_in_chunk(&self.vm, no, &PageSet::FULL, Release::Ballooned);
            }
        }
        serve_freed(&self.vm, outcome.freed);
        outcome
    }

    /// Takes pages that the guest has taken out of its balloon.
    pub fn deflate(&mut self, ppns: &[Ppn]) {
        let (sets, _outside) = self.vm.memory.layout().by_chunk(&ranges(ppns));
        for (no, set) in sets {
            if let Some(gathered) = self.pending.get_mut(&no) {
                *gathered = gathered.minus(&set);
            }
            deflate_in_chunk(&self.vm, no, &set);
        }
        self.pending.retain(|_, gathered| !gathered.is_empty());
    }

    /// Releases everything gathered so far.
    pub fn flush(&mut self) -> ReleaseOutcome {
        let mut outcome = ReleaseOutcome::default();
        for (no, set) in std::mem::take(&mut self.pending) {
            outcome += release_in_chunk(&self.vm, no, &set, Release::Ballooned);
        }
        serve_freed(&self.vm, outcome.freed);
        outcome
    }

    /// Forgets everything gathered, because the guest was reset.
    pub fn clear(&mut self) {
        self.pending.clear();
    }

    /// Pages gathered and not yet released.
    pub fn pending(&self) -> Pages {
        self.pending.values().map(PageSet::count).sum()
    }
}

/// Joins consecutive page numbers to ranges.
fn ranges(ppns: &[Ppn]) -> Vec<PpnRange> {
    let runs = ppns.chunk_by(|one, next| one.0.checked_add(1) == Some(next.0));
    runs.map(|run| PpnRange::new(run[0], Pages(run.len() as u64))).collect()
}
