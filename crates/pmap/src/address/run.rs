//! How long runs of pages are worth it.

#[cfg(test)]
mod tests;

use plimsoll_units::{PageSet, Slot};

/// Most pages that one fault provides where the guest goes from page to page: 64 KiB. Fewer, and a
/// guest that touches memory in order has more faults; more, and pages that it never touches are
/// charged to it.
pub(crate) const MAX_RUN: Slot = 16;

/// Whether `pages` are many runs: more than are worth a system call each.
pub(crate) fn is_ragged(pages: &PageSet) -> bool {
    /// A system call for a whole chunk costs about as much as a few for single pages.
    const FEW: usize = 16;
    pages.runs().nth(FEW).is_some()
}
