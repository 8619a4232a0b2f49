//! Giving out memory: what each VM that waits may have at once.
//!
//! **Promises.** Memory that VMs and pools have reserved and not been granted is withheld from all
//! others. The rest is open. Of that a VM may take
//! - everything, up to its reservation and to what its pools have reserved for their VMs,
//! - what lies above the low threshold, up to its entitlement and what it is
//!   [lent](crate::Decision::lent); the more it has of that, the more it leaves, up to
//!   [`Thresholds::reserve`], so that the last of what is free is for those that have the least,
//! - what lies above the clear threshold, up to its limit.
//!
//! **Loans.** What is withheld is lent to VMs from which it comes back at once: those that hold
//! more than they are entitled to, as far as that can be swapped out. When the lender wants it, it
//! is owed memory, and [`decide`](crate::decide) has what is owed paged out of them.
//!
//! **Leeway.** A guest has to run for its balloon to inflate, and its kernel may clear each page
//! before the balloon gets it. Linux takes free pages first, among them such as hold no memory of
//! the host yet. So a VM that has a balloon to inflate gets [`CIRCULATING`] more at once, down to
//! the low threshold, or the reserve where another VM waits for what it is entitled to: what the balloon takes of that serves the next faults. One that has waited in
//! vain for a whole control period all the same, and cannot page, gets up to [`LEEWAY`] unless
//! another VM waits for what it is entitled to.
//!
//! **Order.** VMs below their entitlements come first. Among them those come first that have waited
//! in vain for a whole period, in order of shares: the VM with the least memory for its shares is
//! the next. Then come VMs below what they are lent, then all others. Those are served by need, the
//! smallest first, so that a large one cannot starve them.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::promises::{Promise, Promises};
use crate::{Driver, PoolId, PoolTree, Thresholds};

/// How long a VM waits in vain before it pages for itself or gets leeway: the daemon's control
/// period. Less, and a VM pages although others are about to give; more, and its guest stands still
/// for longer than its users bear.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What a VM gets beyond what it may have while its balloon inflates, whatever others wait for.
/// Less, and the pages that are on their way into the balloon leave no whole chunk for the next
/// fault, which then serves a single page; more, and many balloons that inflate at once take what
/// others wait for.
pub const CIRCULATING: Pages = Pages(2 * Pages::CHUNK.0);

/// The most that a VM gets beyond what it may have, a chunk at a time, for its balloon to inflate.
/// Less, and a balloon driver may stand still for want of a page; more, and a guest gains by
/// pretending to inflate.
pub const LEEWAY: Pages = Pages((16 << 20) / plimsoll_units::PAGE_SIZE);

/// A VM that may claim memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its pool.
    pub pool: PoolId,
    /// Its shares among its siblings.
    pub shares: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Its grant, and its part of shared frames.
    pub granted: Pages,
    /// The part of `granted` that is certainly its own: a part of frames is rounded up.
    pub certain: Pages,
    /// What its faults wait for beyond its grant.
    pub wanted: Pages,
    /// What it can use beyond its grant.
    pub usable: Pages,
    /// What it is entitled to.
    pub entitlement: Pages,
    /// What it may have beyond that: see [`Decision::lent`](crate::Decision::lent).
    pub lent: Pages,
    /// The most that it may be granted as policy has it: see
    /// [`Decision::most`](crate::Decision::most).
    pub most: Pages,
    /// The smaller of its limit and size.
    pub limit: Pages,
    /// Its reservation.
    pub reservation: Pages,
    /// Whether its balloon works.
    pub driver: Driver,
    /// Its balloon has still to grow.
    pub inflates: bool,
    /// Its own pages can serve its faults.
    pub can_page: bool,
    /// Pages of it that can still be swapped out.
    pub swap: Pages,
    /// How long it has waited since it began to or last got leeway.
    pub waited: Duration,
    /// It has waited in vain for a whole period, and still does.
    pub starved: bool,
    /// What it got as leeway and has not given back, since it was last within its entitlement.
    pub leeway: Pages,
}

/// A VM or a pool that has reserved memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The party of that place.
    Vm(usize),
    /// The pool.
    Pool(PoolId),
}

/// How far a VM has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its reservation and its overhead to be free.
    Queued {
        /// What its process is charged.
        overhead: Pages,
    },
    /// Memory is given to it.
    Running,
    /// It keeps what it has until it is gone. It gets nothing, and is promised nothing.
    Leaving,
}

impl Party {
    fn promise(&self) -> Promise {
        let open = match self.stage {
            Stage::Queued { overhead } => self.reservation.saturating_add(overhead),
            Stage::Running => self.reservation.saturating_sub(self.certain),
            Stage::Leaving => Pages::ZERO,
        };
        let returnable = match self.stage {
            Stage::Running => self.swap.min(self.certain.saturating_sub(self.keeps())),
            Stage::Queued { .. } | Stage::Leaving => Pages::ZERO,
        };
        Promise { open, granted: self.granted, certain: self.certain, limit: self.limit, returnable }
    }

    /// Nothing is paged out of it for others below this.
    fn keeps(&self) -> Pages {
        self.entitlement.max(self.reservation)
    }

    fn waits(&self) -> bool {
        self.stage == Stage::Running && self.wanted > Pages::ZERO
    }

    /// What it is entitled to, and what it is lent.
    fn claim(&self) -> Pages {
        self.entitlement.saturating_add(self.lent)
    }

    /// It waits for what it is entitled to or lent.
    fn is_owed(&self) -> bool {
        self.waits() && self.granted < self.claim()
    }
}

/// Free memory and all VMs that may claim it. Built once for a round of giving, and kept up to date
/// by every grant.
#[derive(Clone, Debug)]
pub struct Grants {
    free: Pages,
    thresholds: Thresholds,
    promises: Promises,
    /// What each party's shares are worth on the host.
    weights: Vec<f64>,
    parties: Vec<Party>,
    /// How many VMs wait for what they are entitled to.
    owed: usize,
}

impl Grants {
    /// A host with `free` memory. Parties are named by their place in `parties` from now on.
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

    /// What is free now.
    pub fn free(&self) -> Pages {
        self.free
    }

    /// A VM as it is now.
    pub fn party(&self, i: usize) -> &Party {
        &self.parties[i]
    }

    /// Returns what a VM may have now: what it waits for, or a chunk where it waits for less.
    /// Single pages would cost a message each; the VM returns what it does not use.
    pub fn allowance(&self, i: usize) -> Pages {
        let party = &self.parties[i];
        let due = self.due(party);
        if due > Pages::ZERO { due } else { self.leeway(party) }
    }

    /// Returns what a VM could have if it asked for a chunk, without leeway.
    pub fn could_have(&self, i: usize) -> Pages {
        self.due(&Party { wanted: Pages::CHUNK, ..self.parties[i] })
    }

    /// Returns what a VM may have now, without leeway.
    fn due(&self, party: &Party) -> Pages {
        if !party.waits() {
            return Pages::ZERO;
        }
        let open = self.open_to(party);
        let lacks = |of: Pages| of.saturating_sub(party.granted);
        // What a pool above it has reserved and not been granted is as good as its own.
        let in_reserve = self.promises.reserve(party.pool);
        let reserved = lacks(party.reservation).max(lacks(party.entitlement).min(in_reserve)).min(open);
        let entitled = lacks(party.claim()).min(open.saturating_sub(self.floor(party)));
        let spare = open.saturating_sub(self.thresholds.clear);
        let wish = party.wanted.max(Pages::CHUNK).min(party.usable);
        wish.min(reserved.max(entitled).max(spare)).min(self.room(party))
    }

    /// Returns down to where a VM may draw on free memory for what it is entitled to: to the low
    /// threshold if it has nothing of that, and to [`Thresholds::reserve`] if it has nearly all.
    fn floor(&self, party: &Party) -> Pages {
        let (low, reserve) = (self.thresholds.low, self.thresholds.reserve());
        let has = u128::from(party.granted.min(party.claim()).0);
        let part = u128::from(reserve.saturating_sub(low).0) * has / u128::from(party.claim().0).max(1);
        low.saturating_add(Pages(u64::try_from(part).unwrap_or(u64::MAX)))
    }

    /// Returns what a VM may have now for its balloon to inflate, even above a limit that was
    /// lowered.
    fn leeway(&self, party: &Party) -> Pages {
        if !party.waits() || !party.inflates || party.is_owed() {
            return Pages::ZERO;
        }
        let helpless = party.waited >= PATIENCE && !party.can_page;
        let most = if helpless && self.owed == 0 { LEEWAY } else { CIRCULATING };
        // The last of what is free is for VMs that wait for what they are entitled to.
        let floor = if self.owed == 0 { self.thresholds.low } else { self.thresholds.reserve() };
        let above_floor = self.open_to(party).saturating_sub(floor);
        let room = match party.limit.checked_sub(party.granted) {
            Some(room) => room.min(party.usable),
            None => party.usable,
        };
        Pages::CHUNK.min(most.saturating_sub(party.leeway)).min(above_floor).min(room)
    }

    /// Returns what a VM's bounds leave it.
    fn room(&self, party: &Party) -> Pages {
        let Party { granted, limit, reservation, .. } = *party;
        // Under a pool's limit a VM may have its reservation, and what policy and other VMs leave.
        let in_pool = self.promises.room(party.pool).map_or(limit, |room| granted.saturating_add(room));
        let mut most = limit.min(in_pool.min(party.most).max(reservation));
        if party.driver == Driver::Stuck {
            // A VM gains nothing by a balloon that does not follow.
            most = most.min(party.entitlement.max(reservation));
        }
        most.saturating_sub(granted)
    }

    /// Charges a VM `pages`, at most what is free.
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

    /// Credits a VM with `pages` that it gave back.
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

    /// Charges a VM that was queued its overhead and a first grant.
    pub fn start(&mut self, i: usize, overhead: Pages, grant: Pages) {
        self.free = self.free.saturating_sub(overhead);
        self.set_stage(i, Stage::Running);
        self.give(i, grant);
    }

    /// Returns the VMs that wait in the order of service.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.parties.len()).filter(|i| self.parties[*i].waits()).collect();
        let key = |i: &usize| {
            let party = &self.parties[*i];
            let starved = party.starved || party.waited >= PATIENCE;
            match party.is_owed() {
                // A VM that only borrows comes after the VMs that are entitled.
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

    /// Returns what a VM would hold with a chunk more, for what its shares are worth.
    fn price(&self, i: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an order, not an account")]
        let granted = self.parties[i].granted.saturating_add(Pages::CHUNK).0 as f64;
        granted / self.weights[i]
    }

    /// Returns what is free and not promised to others than this VM. Nothing is lent to it.
    pub fn open(&self, i: usize) -> Pages {
        self.open_beside(self.parties[i].pool, self.parties[i].promise())
    }

    /// Returns what is free and not promised to the parties, for a VM of `pool` that is none yet.
    pub fn open_in(&self, pool: PoolId) -> Pages {
        self.open_beside(pool, Promise::default())
    }

    fn open_beside(&self, pool: PoolId, own: Promise) -> Pages {
        let (promised, returnable) = self.promises.of_others(pool, own);
        self.free.saturating_sub(promised.saturating_sub(returnable))
    }

    /// Returns what is free for a VM that runs, with what is lent to it.
    fn open_to(&self, party: &Party) -> Pages {
        self.free.saturating_sub(self.withheld_from(party))
    }

    /// Returns what is promised to others than `party`, and neither lent to VMs from which it comes
    /// back at once nor would be to this one.
    fn withheld_from(&self, party: &Party) -> Pages {
        let (promised, _) = self.promises.of_others(party.pool, party.promise());
        let withheld = promised.saturating_sub(self.promises.all().returnable);
        // A loan begins where neither the VM nor its pools have a right to what it gets.
        let right = party.keeps().saturating_sub(party.granted).max(self.promises.lacking(party.pool));
        if self.free.saturating_sub(withheld) < right {
            return withheld;
        }
        let lent = party.granted.saturating_sub(party.keeps());
        withheld.saturating_sub(party.swap.saturating_sub(lent))
    }

    /// Returns what is withheld from a VM: what is promised to others and not lent.
    pub fn withheld_from_vm(&self, i: usize) -> Pages {
        self.withheld_from(&self.parties[i])
    }

    /// Returns for which VMs and pools memory is withheld from a VM, and how much, whether it is
    /// lent or not. What a pool has reserved counts for it as far as its VMs have not reserved it.
    pub fn withheld_for(&self, i: usize) -> Vec<(Holder, Pages)> {
        let others = self.parties.iter().enumerate().filter(|(other, _)| *other != i);
        let vms = others.map(|(other, party)| (Holder::Vm(other), party.promise().open));
        let pools = self.promises.of_other_pools(self.parties[i].pool);
        let pools = pools.into_iter().map(|(pool, open)| (Holder::Pool(pool), open));
        vms.chain(pools).filter(|(_, open)| *open > Pages::ZERO).collect()
    }

    /// Returns what the limits of the pools above a VM leave it.
    pub fn room_in_pools(&self, i: usize) -> Pages {
        self.promises.room(self.parties[i].pool).unwrap_or(Pages(u64::MAX))
    }

    /// Returns what is promised and neither granted nor lent: see
    /// [`Host::withheld`](crate::Host::withheld).
    pub fn withheld(&self) -> Pages {
        let all = self.promises.all();
        all.open.saturating_sub(all.returnable)
    }
}

/// Returns the part of the host that each party's shares are worth among its siblings, the shares
/// of the pools above it included. Pools without VMs take no part.
#[expect(clippy::cast_precision_loss, reason = "an order, not an account")]
fn weights(pools: &PoolTree, parties: &[Party]) -> Vec<f64> {
    let shares = |id: PoolId| pools.get(id).map_or(0, |named| named.pool.shares) as f64;
    // What the VMs and pools directly in each pool have together.
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
#[path = "grants_tests.rs"]
mod tests;
