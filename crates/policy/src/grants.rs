//! Giving out memory: the amount that each waiting VM may have at once.
//!
//! **Promises.** Memory that VMs and pools have reserved and that is not granted yet is withheld
//! from all other VMs. The rest is open. A VM may take
//! - all open memory, up to its reservation and its pools' reservations for their VMs,
//! - open memory above the low threshold, up to its entitlement and the memory that it is
//!   [lent](crate::Decision::lent). The more it has of those, or of what its shares are worth if
//!   that is more, the more open memory it leaves, up to [`Thresholds::reserve`]: the last free
//!   memory is for VMs that have the least of theirs,
//! - open memory above the clear threshold, up to its limit.
//!
//! **Loans.** Withheld memory is lent to VMs that give it back at once: those above their
//! entitlements, as far as their pages can be swapped out. When the lender wants it, the lender is
//! owed memory, and [`decide`](crate::decide) pages owed memory out of those VMs.
//!
//! **Leeway.** A guest has to run for its balloon to inflate, and its kernel may clear each page
//! before the balloon gets it. Linux takes free pages first, among them pages that hold no memory
//! of the host yet. So a VM whose balloon has to inflate gets [`CIRCULATING`] more at once: pages
//! that the balloon takes serve the next faults. It gets them down to the low threshold, or to the
//! reserve where another VM waits for memory within its entitlement. A VM that has waited in vain
//! for a whole control period all the same, and cannot page, gets up to [`LEEWAY`] unless another
//! VM waits for memory within its entitlement.
//!
//! **Order.** VMs below their entitlements come first. Among them those come first that have waited
//! in vain for a whole period, in order of shares: the VM with the least memory for its shares is
//! the next. Then come VMs below their entitlements and loans, then all others. Those are served by
//! need, the smallest first, so that a large VM cannot starve them.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::party::{Party, Stage};
use crate::pool::{PoolId, PoolTree};
use crate::promises::{Promise, Promises};
use crate::state::Thresholds;
use crate::vm::Driver;

/// The time that a VM waits in vain before it pages for itself or gets leeway: the daemon's control
/// period. If shorter, a VM pages although other VMs are about to give. If longer, its guest stands
/// still for longer than its users bear.
pub const LONG_WAIT: Duration = Duration::from_secs(1);

/// The leeway of a VM while its balloon inflates, even if other VMs wait. If less, pages on their
/// way into the balloon leave no whole chunk for the next fault, which then serves a single page.
/// If more, many balloons that inflate at once take memory that other VMs wait for.
pub const CIRCULATING: Pages = Pages(2 * Pages::CHUNK.0);

/// The largest leeway of a VM, given a chunk at a time, for its balloon to inflate. If less, a
/// balloon driver may stand still for want of a page. If more, a guest gains by pretending to
/// inflate.
pub const LEEWAY: Pages = Pages((16 << 20) / plimsoll_units::PAGE_SIZE);

/// A VM or a pool that has reserved memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The party at that place.
    Vm(usize),
    /// The pool.
    Pool(PoolId),
}

/// Free memory and all VMs that may claim it. It is built once for a round of giving, and every
/// grant updates it.
#[derive(Clone, Debug)]
pub struct Grants {
    free: Pages,
    thresholds: Thresholds,
    promises: Promises,
    /// The worth of each party's shares on the host.
    weights: Vec<f64>,
    parties: Vec<Party>,
    /// The number of VMs that wait for memory within their entitlements and loans.
    owed: usize,
}

impl Grants {
    /// A host with `free` memory. The other methods name a party by its place in `parties`.
    ///
    /// # Panics
    /// Where a party is in a pool that `pools` does not have.
    pub fn new(free: Pages, thresholds: Thresholds, pools: &PoolTree, parties: Vec<Party>) -> Self {
        let mut promises = Promises::new(pools);
        for party in &parties {
            promises.change(party.pool, Promise::default(), party.promise());
        }
        let owed = parties.iter().filter(|party| party.is_owed()).count();
        Self { free, thresholds, promises, weights: weights(pools, &parties), parties, owed }
    }

    /// Free memory now.
    pub fn free(&self) -> Pages {
        self.free
    }

    /// Party `i` as it is now.
    pub fn party(&self, i: usize) -> &Party {
        &self.parties[i]
    }

    /// Returns the memory that a VM may have now: all that it waits for, but at least a chunk.
    /// Single pages would cost a message each; the VM returns pages that it does not use.
    pub fn allowance(&self, i: usize) -> Pages {
        let party = &self.parties[i];
        let due = self.due(party);
        if due > Pages::ZERO { due } else { self.leeway(party) }
    }

    /// Returns the open memory that a VM leaves to others: with more than it is entitled to, the
    /// clear threshold.
    pub fn leaves(&self, i: usize) -> Pages {
        let party = &self.parties[i];
        if party.granted < party.claim() { self.floor(party) } else { self.thresholds.clear }
    }

    /// Returns the memory that a VM could have if it asked for a chunk, without leeway.
    pub fn could_have(&self, i: usize) -> Pages {
        self.due(&Party { wanted: Pages::CHUNK, ..self.parties[i] })
    }

    /// Returns the memory that a VM may have now, without leeway.
    fn due(&self, party: &Party) -> Pages {
        if !party.waits() {
            return Pages::ZERO;
        }
        let open = self.open_to(party);
        let lacks = |of: Pages| of.saturating_sub(party.granted);
        // A reservation of a pool above it that is not granted yet is as good as its own.
        let in_reserve = self.promises.reserve(party.pool);
        let reserved = lacks(party.reservation).max(lacks(party.entitlement).min(in_reserve)).min(open);
        let entitled = lacks(party.claim()).min(open.saturating_sub(self.floor(party)));
        let spare = open.saturating_sub(self.thresholds.clear);
        let wish = party.wanted.max(Pages::CHUNK).min(party.usable);
        wish.min(reserved.max(entitled).max(spare)).min(self.room(party))
    }

    /// Returns the free memory that a VM leaves when it draws on its entitlement and loan: the low
    /// threshold if it has nothing of them, [`Thresholds::reserve`] if it has nearly all. A VM
    /// whose shares are worth more than its size leaves less: it is the last that others may keep
    /// waiting.
    fn floor(&self, party: &Party) -> Pages {
        let (low, reserve) = (self.thresholds.low, self.thresholds.reserve());
        let due = party.claim().max(party.worth);
        let has = u128::from(party.granted.min(due).0);
        let part = u128::from(reserve.saturating_sub(low).0) * has / u128::from(due.0).max(1);
        low.saturating_add(Pages(u64::try_from(part).unwrap_or(u64::MAX)))
    }

    /// Returns the leeway that a VM may have now for its balloon to inflate, even above a limit
    /// that was lowered.
    fn leeway(&self, party: &Party) -> Pages {
        if !party.waits() || !party.inflates || party.is_owed() {
            return Pages::ZERO;
        }
        let helpless = party.waited >= LONG_WAIT && !party.can_page;
        let most = if helpless && self.owed == 0 { LEEWAY } else { CIRCULATING };
        // The last free memory is for VMs that wait for memory within their entitlements.
        let floor = if self.owed == 0 { self.thresholds.low } else { self.thresholds.reserve() };
        let above_floor = self.open_to(party).saturating_sub(floor);
        let room = match party.limit.checked_sub(party.granted) {
            Some(room) => room.min(party.usable),
            None => party.usable,
        };
        Pages::CHUNK.min(most.saturating_sub(party.leeway)).min(above_floor).min(room)
    }

    /// Returns the memory that a VM's bounds allow beyond its grant.
    fn room(&self, party: &Party) -> Pages {
        let Party { granted, limit, reservation, .. } = *party;
        // Under a pool's limit a VM may have its reservation, and the memory that policy and other
        // VMs leave it.
        let in_pool = self.promises.room(party.pool).map_or(limit, |room| granted.saturating_add(room));
        let mut most = limit.min(in_pool.min(party.most).max(reservation));
        if party.driver == Driver::Stuck {
            // A VM gains nothing by a balloon that does not follow.
            most = most.min(party.entitlement.max(reservation));
        }
        most.saturating_sub(granted)
    }

    /// Charges a VM `pages`, which is at most free memory.
    pub fn give(&mut self, i: usize, pages: Pages) {
        let leeway = pages.saturating_sub(self.due(&self.parties[i]));
        self.free = self.free.saturating_sub(pages);
        self.change(i, |party| {
            party.granted = party.granted.saturating_add(pages);
            party.certain = party.certain.saturating_add(pages);
            party.usable = party.usable.saturating_sub(pages);
            party.wanted = party.wanted.saturating_sub(pages);
            party.leeway = party.leeway.saturating_add(leeway);
        });
    }

    /// Credits a VM with `pages` that it has given back.
    pub fn take_back(&mut self, i: usize, pages: Pages) {
        self.free = self.free.saturating_add(pages);
        self.change(i, |party| {
            party.granted = party.granted.saturating_sub(pages);
            party.certain = party.certain.saturating_sub(pages);
            party.usable = party.usable.saturating_add(pages);
            party.leeway = party.leeway.saturating_sub(pages);
        });
    }

    /// Moves a VM to another stage.
    pub fn set_stage(&mut self, i: usize, stage: Stage) {
        self.change(i, |party| party.stage = stage);
    }

    fn change(&mut self, i: usize, change: impl FnOnce(&mut Party)) {
        let party = &mut self.parties[i];
        let (before, was_owed) = (party.promise(), party.is_owed());
        change(party);
        self.promises.change(party.pool, before, party.promise());
        self.owed = self.owed - usize::from(was_owed) + usize::from(party.is_owed());
    }

    /// Charges a queued VM its overhead and a first grant.
    pub fn start(&mut self, i: usize, overhead: Pages, grant: Pages) {
        self.free = self.free.saturating_sub(overhead);
        self.set_stage(i, Stage::Running);
        self.give(i, grant);
    }

    /// Returns the waiting VMs in the order of service.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.parties.len()).filter(|i| self.parties[*i].waits()).collect();
        let key = |i: &usize| {
            let party = &self.parties[*i];
            let starved = party.starved || party.waited >= LONG_WAIT;
            match party.is_owed() {
                // A borrower comes after VMs below their entitlements.
                true if party.granted >= party.entitlement => (2, 0.0, party.wanted),
                true if starved => (0, self.price(*i), party.wanted),
                true => (1, 0.0, party.wanted),
                false => (3, 0.0, party.wanted),
            }
        };
        order.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
        });
        order
    }

    /// Returns the memory that a VM would hold with a chunk more, over the worth of its shares.
    fn price(&self, i: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an order, not an account")]
        let granted = self.parties[i].granted.saturating_add(Pages::CHUNK).0 as f64;
        granted / self.weights[i]
    }

    /// Returns free memory that is not promised to other VMs, without loans to this one.
    pub fn open(&self, i: usize) -> Pages {
        self.open_beside(self.parties[i].pool, self.parties[i].promise())
    }

    /// Returns free memory that is not promised to any party, for a new VM of `pool`.
    pub fn open_in(&self, pool: PoolId) -> Pages {
        self.open_beside(pool, Promise::default())
    }

    fn open_beside(&self, pool: PoolId, own: Promise) -> Pages {
        let (promised, returnable) = self.promises.of_others(pool, own);
        self.free.saturating_sub(promised.saturating_sub(returnable))
    }

    /// Returns free memory for a running VM, with loans to it.
    fn open_to(&self, party: &Party) -> Pages {
        self.free.saturating_sub(self.withheld_from(party))
    }

    /// Returns memory that is promised to other parties, less loans to VMs that give them back at
    /// once, and less a loan that this one could get.
    fn withheld_from(&self, party: &Party) -> Pages {
        let (promised, _) = self.promises.of_others(party.pool, party.promise());
        let withheld = promised.saturating_sub(self.promises.all().returnable);
        // A loan begins beyond the rights of the VM and its pools.
        let right = party.keeps().saturating_sub(party.granted).max(self.promises.lacking(party.pool));
        if self.free.saturating_sub(withheld) < right {
            return withheld;
        }
        let lent = party.granted.saturating_sub(party.keeps());
        withheld.saturating_sub(party.swap.saturating_sub(lent))
    }

    /// Returns the memory that is withheld from a VM: promised to others and not lent.
    pub fn withheld_from_vm(&self, i: usize) -> Pages {
        self.withheld_from(&self.parties[i])
    }

    /// Returns the VMs and pools for which memory is withheld from a VM, with the amount of each,
    /// loans included. A pool's amount does not include the reservations of its VMs.
    pub fn withheld_for(&self, i: usize) -> Vec<(Holder, Pages)> {
        let others = self.parties.iter().enumerate().filter(|(other, _)| *other != i);
        let vms = others.map(|(other, party)| (Holder::Vm(other), party.promise().open));
        let pools = self.promises.of_other_pools(self.parties[i].pool);
        let pools = pools.into_iter().map(|(pool, open)| (Holder::Pool(pool), open));
        vms.chain(pools).filter(|(_, open)| *open > Pages::ZERO).collect()
    }

    /// Returns the memory that the limits of the pools above a VM leave it.
    pub fn room_in_pools(&self, i: usize) -> Pages {
        self.promises.room(self.parties[i].pool).unwrap_or(Pages(u64::MAX))
    }

    /// Returns the memory that is promised and neither granted nor lent: see
    /// [`Host::withheld`](crate::Host::withheld).
    pub fn withheld(&self) -> Pages {
        let all = self.promises.all();
        all.open.saturating_sub(all.returnable)
    }
}

/// Returns the part of the host that each party's shares are worth, with the shares of the pools
/// above it. Pools without VMs take no part.
#[expect(clippy::cast_precision_loss, reason = "an order, not an account")]
fn weights(pools: &PoolTree, parties: &[Party]) -> Vec<f64> {
    let shares = |id: PoolId| pools.get(id).map_or(0, |named| named.pool.shares) as f64;
    // The sum of the shares of the VMs and pools directly in each pool.
    let mut sums = vec![0.0; pools.ids().count()];
    for party in parties {
        let (mut at, mut shares_below) = (party.pool, party.shares as f64);
        loop {
            let empty = sums[at.index()] == 0.0;
            sums[at.index()] += shares_below;
            match pools.parent(at) {
                Some(parent) if empty => (at, shares_below) = (parent, shares(at)),
                _ => break,
            }
        }
    }
    let mut worth = vec![1.0; sums.len()];
    for id in pools.ids() {
        if let Some(parent) = pools.parent(id) {
            worth[id.index()] = worth[parent.index()] * shares(id) / f64::max(sums[parent.index()], 1.0);
        }
    }
    let weight = |party: &Party| {
        let pool = party.pool.index();
        worth[pool] * party.shares as f64 / f64::max(sums[pool], 1.0)
    };
    parties.iter().map(weight).collect()
}

#[cfg(test)]
mod tests;
