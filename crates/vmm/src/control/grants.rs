use plimsoll_pmap::{Pmap, Stats};
use plimsoll_protocol::sharing::WINDOW;
use plimsoll_units::Pages;

use super::outbox::Outbox;
use crate::machine::Vm;

/// Grant that the VM keeps beyond what it holds: one chunk. The next fault needs no more, so a
/// guest that frees and takes a chunk in turn sends no messages. With less it would send two each
/// time; more would lie unused in every VM.
const SLACK: Pages = Pages::CHUNK;

/// Slack while the balloon grows, as policy allows (`CIRCULATING`).
const GROWING: Pages = Pages(2 * Pages::CHUNK.0);

/// Slack that pays for frames where pages are shared: as many as are offered at a time. Each page
/// that is shared then frees what its frame has cost. Less, and offers are small; more would lie
/// idle.
const OFFER_SLACK: Pages = Pages(WINDOW as u64);

/// Ticks between two requests for that. A host without free memory needs time to reclaim some.
const OFFER_RETRY: u32 = 10;

/// What goes to and fro between the pmap and the daemon: wants and returns.
///
/// One want is unanswered at a time. If a second were sent before the grant for the first came in,
/// the daemon would grant what they have in common twice.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// What the daemon was asked for last.
    asked: Pages,
    /// It has not answered yet.
    unanswered: bool,
    /// Grant needed to unshare pages, beyond what faults wait for.
    leaving: Pages,
    /// What is missing of [`OFFER_SLACK`], while it is asked for. No fault waits for it, so it is
    /// asked for only until the next tick.
    offer_slack: Pages,
    /// Ticks until it is asked for again.
    retry_in: u32,
    /// Beyond the slack, and unused, at the last tick.
    idle: bool,
    held: Pages,
}

impl Grants {
    /// What faults wait for has changed. `daemon`: what to ask it by, while one is connected.
    pub(super) fn want(&mut self, total: Pages, pmap: &Pmap, daemon: Option<&mut Outbox>) {
        let total = total + self.leaving + self.offer_slack;
        match daemon {
            None => self.make_do(total, pmap),
            Some(outbox) if total == Pages::ZERO || !self.unanswered => self.tell(total, outbox),
            Some(_) => {}
        }
    }

    /// Shared pages that are to come back need `pages`.
    pub(super) fn leaving(&mut self, pages: Pages, pmap: &Pmap, daemon: Option<&mut Outbox>) {
        if std::mem::replace(&mut self.leaving, pages) != pages {
            self.want(pmap.stats().wanted, pmap, daemon);
        }
    }

    /// The daemon has granted `pages`.
    pub(super) fn granted(&mut self, pages: Pages, pmap: &Pmap, outbox: &mut Outbox) {
        self.unanswered = false;
        self.offer_slack = Pages::ZERO;
        pmap.add_grant(pages);
        if pages > Pages::ZERO {
            self.leaving = Pages::ZERO;
            // What was wanted has been served. The next fault may want just as much: that is no
            // change for the pmap, but a new want for the daemon. After a grant of nothing it would
            // be the same want again, without end.
            self.asked = Pages::ZERO;
        }
        self.refresh(pmap, outbox);
    }

    /// A daemon has connected; its `Hello` said what is wanted.
    pub(super) fn connected(&mut self, pmap: &Pmap, outbox: &mut Outbox) {
        *self = Self { leaving: self.leaving, ..Self::default() };
        self.refresh(pmap, outbox);
    }

    /// The daemon has disconnected: waiting faults are served from the grant that the VM has.
    pub(super) fn disconnected(&mut self, pmap: &Pmap) {
        *self = Self { leaving: self.leaving, ..Self::default() };
        self.make_do(pmap.stats().wanted, pmap);
    }

    /// Returns grant that became unused because guest memory was given back.
    pub(super) fn freed(&mut self, vm: &Vm, outbox: &mut Outbox) {
        // Where the daemon wants memory back, nothing is kept but what brings more back: by
        // sharing, and by the balloon, for which the guest's kernel may clear each page first.
        let slack = if vm.guest.balloon().inflates() {
            GROWING
        } else if vm.scanner.shares() {
            OFFER_SLACK
        } else {
            Pages::ZERO
        };
        let keep = vm.pager.keeps(SLACK, vm.pmap.stats().held).max(slack) + self.leaving;
        let returned = vm.pmap.return_grant(keep);
        if returned > Pages::ZERO {
            outbox.returned(returned);
        }
    }

    /// Once a period: repeats a want that has changed while it was unanswered, and returns grant
    /// that the guest did not need for a whole period.
    pub(super) fn tick(&mut self, vm: &Vm, outbox: &mut Outbox) {
        let stats = vm.pmap.stats();
        self.offer_slack = self.lacking(vm, &stats);
        self.refresh(&vm.pmap, outbox);
        let idle =
            stats.grant.saturating_sub(stats.held) > SLACK + self.leaving && stats.wanted == Pages::ZERO;
        if idle && self.idle && stats.held <= self.held {
            self.freed(vm, outbox);
        }
        (self.idle, self.held) = (idle, stats.held);
    }

    /// What is to be asked for so that sharing can begin, where the VM's level leaves room for it.
    /// A VM whose memory is wanted has some when it has given some.
    fn lacking(&mut self, vm: &Vm, stats: &Stats) -> Pages {
        self.retry_in = self.retry_in.saturating_sub(1);
        let slack = stats.grant.saturating_sub(stats.held);
        let room = vm.pager.keeps(OFFER_SLACK, stats.held) == OFFER_SLACK;
        let asks = vm.scanner.shares() && stats.wanted == Pages::ZERO && room;
        if !asks || slack >= OFFER_SLACK || self.retry_in > 0 {
            return Pages::ZERO;
        }
        self.retry_in = OFFER_RETRY;
        OFFER_SLACK - slack
    }

    fn refresh(&mut self, pmap: &Pmap, outbox: &mut Outbox) {
        let wanted = pmap.stats().wanted + self.leaving + self.offer_slack;
        if wanted != self.asked {
            self.tell(wanted, outbox);
        }
    }

    fn tell(&mut self, total: Pages, outbox: &mut Outbox) {
        outbox.want(total);
        (self.asked, self.unanswered) = (total, total > Pages::ZERO);
    }

    fn make_do(&self, wanted: Pages, pmap: &Pmap) {
        if wanted > Pages::ZERO {
            pmap.add_grant(Pages::ZERO);
        }
    }
}
