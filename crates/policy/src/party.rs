use std::time::Duration;

use plimsoll_units::Pages;

use crate::pool::PoolId;
use crate::promises::Promise;
use crate::vm::Driver;

/// A VM that may claim memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its pool.
    pub pool: PoolId,
    /// Its shares among its siblings.
    pub shares: u64,
    /// The stage of its life.
    pub stage: Stage,
    /// Its grant and its part of shared frames.
    pub granted: Pages,
    /// The part of `granted` that is certainly its own: its part of frames is rounded up.
    pub certain: Pages,
    /// Memory beyond its grant that its faults wait for.
    pub wanted: Pages,
    /// Memory beyond its grant that it can use.
    pub usable: Pages,
    /// Its entitlement.
    pub entitlement: Pages,
    /// Memory beyond its entitlement that it is lent: see
    /// [`Decision::lent`](crate::Decision::lent).
    pub lent: Pages,
    /// The memory that its shares are worth: see [`Decision::worth`](crate::Decision::worth).
    pub worth: Pages,
    /// The largest grant that policy allows: see [`Decision::most`](crate::Decision::most).
    pub most: Pages,
    /// The smaller of its limit and size.
    pub limit: Pages,
    /// Its reservation.
    pub reservation: Pages,
    /// Whether its balloon works.
    pub driver: Driver,
    /// Its balloon has still to grow.
    pub inflates: bool,
    /// It can page: its own pages can serve its faults.
    pub can_page: bool,
    /// Its pages that can still be swapped out.
    pub swap: Pages,
    /// The time that it has waited, since the wait began or it last got leeway.
    pub waited: Duration,
    /// It has waited in vain for a whole period, and still waits.
    pub starved: bool,
    /// Leeway that it got since it was last within its entitlement, and has not given back.
    pub leeway: Pages,
}

/// The stage of a VM's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its reservation and its overhead to be free.
    Queued {
        /// The charge of its process.
        overhead: Pages,
    },
    /// Memory is given to it.
    Running,
    /// It keeps its memory until it ends. It gets and is promised no more.
    Leaving,
}

impl Party {
    /// The promises to it, as sums over pools count them.
    pub(crate) fn promise(&self) -> Promise {
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

    /// The memory that is never paged out of it for other VMs.
    pub(crate) fn keeps(&self) -> Pages {
        self.entitlement.max(self.reservation)
    }

    /// Its faults wait for memory.
    pub(crate) fn waits(&self) -> bool {
        self.stage == Stage::Running && self.wanted > Pages::ZERO
    }

    /// Its entitlement and the memory that it is lent.
    pub(crate) fn claim(&self) -> Pages {
        self.entitlement.saturating_add(self.lent)
    }

    /// It waits for memory within its entitlement and loan.
    pub(crate) fn is_owed(&self) -> bool {
        self.waits() && self.granted < self.claim()
    }
}
