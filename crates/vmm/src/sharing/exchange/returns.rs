//! References that are to be given back to the daemon.

use std::collections::VecDeque;

use plimsoll_protocol::control::FromVmm;
use plimsoll_protocol::sharing::{DomainId, MAX_BATCH};
use plimsoll_units::{FrameNo, PageNo, ReturnReason};

/// A queue of messages. It has at most as many pages as the VM: each reference is given back once,
/// and the daemon names no frame for a page before it has read that the last one was given back.
#[derive(Default)]
pub(super) struct ReturnQueue(VecDeque<Batch>);

/// References of one kind, at most [`MAX_BATCH`].
struct Batch {
    domain: DomainId,
    reason: ReturnReason,
    pages: Vec<(PageNo, FrameNo)>,
}

impl ReturnQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds references. Returns whether the queue was empty before.
    pub(super) fn push(
        &mut self,
        domain: DomainId,
        mut pages: &[(PageNo, FrameNo)],
        reason: ReturnReason,
    ) -> bool {
        let was_empty = self.is_empty();
        while !pages.is_empty() {
            let fits =
                |last: &Batch| (last.domain, last.reason) == (domain, reason) && last.pages.len() < MAX_BATCH;
            if !self.0.back().is_some_and(fits) {
                self.0.push_back(Batch { domain, reason, pages: Vec::new() });
            }
            let last = self.0.back_mut().expect("one was added if there was none");
            let (taken, left) = pages.split_at(pages.len().min(MAX_BATCH - last.pages.len()));
            last.pages.extend_from_slice(taken);
            pages = left;
        }
        was_empty
    }

    /// The message that is to be sent next.
    pub(super) fn message(&self) -> Option<FromVmm> {
        let Batch { domain, reason, pages } = self.0.front()?;
        let mismatched = reason.is_mismatch();
        Some(FromVmm::GiveBack { domain: *domain, pages: pages.clone(), mismatched })
    }

    /// Removes the first `count` references of the first message, which have been sent. References
    /// that were added to it meanwhile stay.
    pub(super) fn sent(&mut self, count: usize) {
        if let Some(front) = self.0.front_mut() {
            front.pages.drain(..count.min(front.pages.len()));
            if front.pages.is_empty() {
                self.0.pop_front();
            }
        }
    }
}
