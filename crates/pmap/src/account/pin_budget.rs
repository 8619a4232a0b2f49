use plimsoll_units::Pages;

use crate::lock::{Lock, PINS};
use crate::sync::{Arc, Condvar};

/// How many pages may be pinned at once, over all devices of the VM.
///
/// Pinned pages are in no transition, so they cannot make room for others. If devices could pin all
/// that the VM may hold, the next page would wait for a grant that only their pages could provide.
#[derive(Debug, Default)]
pub(crate) struct PinBudget {
    state: Lock<State, PINS>,
    /// A permit was dropped, or the next ticket may be served.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pinned: Pages,
    /// Tickets are served in order, so that small pins cannot pass a large one for ever.
    next_ticket: u64,
    serving: u64,
}

/// Pages of the budget. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct PinPermit {
    budget: Arc<PinBudget>,
    pages: Pages,
}

impl State {
    /// A pin that is alone fits, however large it is.
    fn fits(&self, pages: Pages, most: Pages) -> bool {
        self.pinned == Pages::ZERO || self.pinned.saturating_add(pages) <= most
    }
}

impl PinBudget {
    /// Takes `pages` if at most `most` are pinned then and no request waits for the budget.
    pub(crate) fn try_take(self: &Arc<Self>, pages: Pages, most: Pages) -> Option<PinPermit> {
        let mut state = self.state.lock();
        if state.next_ticket != state.serving || !state.fits(pages, most) {
            return None;
        }
        state.pinned += pages;
        Some(PinPermit { budget: Arc::clone(self), pages })
    }

    /// Takes `pages` once at most `most()` are pinned then. Waits in order.
    pub(crate) fn take(self: &Arc<Self>, pages: Pages, most: impl Fn() -> Pages) -> PinPermit {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let too_early = |state: &mut State| state.serving != ticket || !state.fits(pages, most());
        let mut state = state.wait_while(&self.changed, too_early);
        state.serving += 1;
        state.pinned += pages;
        drop(state);
        self.changed.notify_all();
        PinPermit { budget: Arc::clone(self), pages }
    }
}

impl Drop for PinPermit {
    fn drop(&mut self) {
        self.budget.state.lock().pinned -= self.pages;
        self.budget.changed.notify_all();
    }
}
