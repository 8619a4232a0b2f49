//! Ranges of pages that the guest gives back, chunk by chunk.

use super::service::serve_freed;
use crate::address::PpnRange;
use crate::transition::Vm;
use crate::transition::release::{Release, ReleaseOutcome, deflate_in_chunk, release_in_chunk};

/// Takes back pages that the guest does not need. They read as zeros when they are next touched.
///
/// `ranges` come from the guest: any order, overlaps and pages outside of RAM are fine. They are
/// sorted into chunks first. A whole chunk is given back at once; part of a large one breaks it up.
/// Waiting faults are served from what this frees.
pub(crate) fn release(vm: &Vm, ranges: &[PpnRange], how: Release) -> ReleaseOutcome {
    let (sets, ignored) = vm.memory.layout().by_chunk(ranges);
    let mut outcome = ReleaseOutcome { ignored, ..ReleaseOutcome::default() };
    sets.for_each(|(no, set)| outcome += release_in_chunk(vm, no, &set, how));
    serve_freed(vm, outcome.freed);
    outcome
}

/// Notes that the guest has taken pages out of its balloon. They stay absent until they are
/// touched. Pages that were not in the balloon are left alone.
pub(crate) fn deflate(vm: &Vm, ranges: &[PpnRange]) {
    let (sets, _outside) = vm.memory.layout().by_chunk(ranges);
    sets.for_each(|(no, set)| deflate_in_chunk(vm, no, &set));
}
