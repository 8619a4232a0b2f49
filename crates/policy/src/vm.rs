use plimsoll_units::Pages;

use crate::{Member, Rules};

/// A VM, as far as its target depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vm {
    /// Its claim and its pool. The claim's `limit` is at most `size`.
    pub member: Member,
    /// Guest-physical memory.
    pub size: Pages,
    /// What it holds; see [`charge`](fn@crate::charge) for what counts.
    pub held: Pages,
    /// What its faults wait for beyond what it holds.
    pub wanted: Pages,
    /// What it is taken to lack: see [`Need::missing`](crate::Need::missing).
    pub lacks: Pages,
    /// The target that it had so far; its limit when it is new.
    pub target: Pages,
    /// The balloon that it was told so far.
    pub balloon: Pages,
    /// Whether its balloon works.
    pub driver: Driver,
    /// The largest balloon that its guest can bear: see [`Spare`](crate::Spare). `None`: its guest
    /// gives no account of its memory.
    pub spare: Option<Pages>,
    /// What can be compressed and swapped out of it.
    pub pageable: Pageable,
    /// It has waited for memory in vain for a whole control period, and there is still none for it.
    pub waited: bool,
}

/// What can still be compressed and swapped out of a VM. Nothing of what it cannot give is counted
/// on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pageable {
    /// Machine memory by which its store of compressed pages may grow.
    pub store: Pages,
    /// Pages for which it has swap space.
    pub swap: Pages,
}

impl Pageable {
    /// Both together.
    pub fn total(&self) -> Pages {
        self.store.saturating_add(self.swap)
    }
}

/// Whether a VM's balloon works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// There is no driver: it has not booted yet, or has none.
    Absent,
    /// There is one, and as far as is known it does what it is told.
    Follows,
    /// There is one that has not done what it was told for too long.
    Stuck,
}

/// A quarter: what a VM may need beyond its estimate before the estimate has followed. Less, and a
/// guest whose sample was unlucky (100 in a period are off by 5 % of memory at worst) is squeezed below
/// what it uses; more, and little of an idle VM's memory counts as idle.
const HEADROOM_DIVISOR: u64 = 4;

impl Vm {
    /// The largest balloon that it may have.
    pub(crate) fn largest_balloon(&self, rules: &Rules) -> Pages {
        rules.balloon(self.size).min(self.spare.unwrap_or(self.size))
    }

    /// What can be taken of what it holds, by its balloon and by paging.
    pub(crate) fn takeable(&self, rules: &Rules) -> Pages {
        let balloon = match self.driver {
            Driver::Follows => {
                self.held.saturating_sub(self.size.saturating_sub(self.largest_balloon(rules)))
            }
            Driver::Absent | Driver::Stuck => Pages::ZERO,
        };
        balloon.saturating_add(self.pageable.total()).min(self.held)
    }

    /// Its working set: what it actively uses and a quarter more, as far as its limit allows.
    /// Nothing is taken from it while somebody holds idle memory that he is not entitled to.
    pub fn working_set(&self) -> Pages {
        let active = self.member.client.active;
        active.saturating_add(Pages(active.0 / HEADROOM_DIVISOR)).min(self.member.client.limit)
    }
}
