use plimsoll_pmap::Pmap;
use plimsoll_units::Pages;

use super::outbox::Outbox;
use crate::machine::Vm;

/// Grant that the VM keeps beyond what it holds: one chunk. It is what the next fault needs at most, so a guest that frees
/// and takes a chunk in turn does not cross the wire each time, twice with less. More would be memory that nobody can use,
/// in every VM.
const SLACK: Pages = Pages::CHUNK;

/// What goes to and fro between the pmap and the daemon: wants and returns.
///
/// One want is unanswered at a time. If a second were sent before the grant for the first came in, the daemon would grant
/// what they have in common twice.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// What the daemon was asked for last.
    told: Pages,
    /// It has not answered yet.
    unanswered: bool,
    /// What pages that are to be shared no more need to come back, beyond what faults wait for.
    leaving: Pages,
    /// Beyond the slack, and unused, at the last tick.
    idle: bool,
    held: Pages,
}

impl Grants {
    /// What faults wait for has changed. `up`: there is a daemon to ask.
    pub(super) fn want(&mut self, total: Pages, pmap: &Pmap, up: bool, outbox: &mut Outbox) {
        let total = total + self.leaving;
        if !up {
            self.make_do(total, pmap);
        } else if total == Pages::ZERO || !self.unanswered {
            self.tell(total, outbox);
        }
    }

    /// Shared pages that are to come back need so much.
    pub(super) fn leaving(&mut self, pages: Pages, pmap: &Pmap, up: bool, outbox: &mut Outbox) {
        if std::mem::replace(&mut self.leaving, pages) != pages {
            self.want(pmap.stats().wanted, pmap, up, outbox);
        }
    }

    /// The daemon has granted `pages`.
    pub(super) fn granted(&mut self, pages: Pages, pmap: &Pmap, outbox: &mut Outbox) {
        self.unanswered = false;
        pmap.add_grant(pages);
        if pages > Pages::ZERO {
            self.leaving = Pages::ZERO;
            // What was wanted has been served. The next fault may want just as much: that is no change for the pmap, but a
            // new want for the daemon. After a grant of nothing it would be the same want again, without end.
            self.told = Pages::ZERO;
        }
        self.refresh(pmap, outbox);
    }

    /// A daemon has connected; its `Hello` said what is wanted.
    pub(super) fn connected(&mut self, pmap: &Pmap, outbox: &mut Outbox) {
        *self = Self { leaving: self.leaving, ..Self::default() };
        self.refresh(pmap, outbox);
    }

    /// The daemon is gone: whoever waits makes do with what is there.
    pub(super) fn disconnected(&mut self, pmap: &Pmap) {
        *self = Self { leaving: self.leaving, ..Self::default() };
        self.make_do(pmap.stats().wanted, pmap);
    }

    /// Guest memory was given back: what it makes idle goes to those who need it.
    pub(super) fn freed(&mut self, vm: &Vm, outbox: &mut Outbox) {
        // Where the daemon wants memory back, nothing is kept.
        let keep = vm.pager.keeps(SLACK, vm.pmap.stats().held) + self.leaving;
        let returned = vm.pmap.return_grant(keep);
        if returned > Pages::ZERO {
            outbox.returned(returned);
        }
    }

    /// Once a period: repeats a want that has changed while it was unanswered, and returns grant that the guest did not need
    /// for a whole period.
    pub(super) fn tick(&mut self, vm: &Vm, outbox: &mut Outbox) {
        self.refresh(&vm.pmap, outbox);
        let stats = vm.pmap.stats();
        let idle =
            stats.grant.saturating_sub(stats.held) > SLACK + self.leaving && stats.wanted == Pages::ZERO;
        if idle && self.idle && stats.held <= self.held {
            self.freed(vm, outbox);
        }
        (self.idle, self.held) = (idle, stats.held);
    }

    fn refresh(&mut self, pmap: &Pmap, outbox: &mut Outbox) {
        let wanted = pmap.stats().wanted + self.leaving;
        if wanted != self.told {
            self.tell(wanted, outbox);
        }
    }

    fn tell(&mut self, total: Pages, outbox: &mut Outbox) {
        outbox.want(total);
        (self.told, self.unanswered) = (total, total > Pages::ZERO);
    }

    fn make_do(&self, wanted: Pages, pmap: &Pmap) {
        if wanted > Pages::ZERO {
            pmap.add_grant(Pages::ZERO);
        }
    }
}
