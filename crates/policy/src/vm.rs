use plimsoll_units::Pages;

use crate::inflation::Inflation;
use crate::member::Member;
use crate::rules::Rules;

/// The facts of a VM that its target depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vm {
    /// Its claim and its pool. The claim's `limit` is at most `size`.
    pub member: Member,
    /// Guest-physical memory.
    pub size: Pages,
    /// The memory that it holds: its [`charge`](fn@crate::charge).
    pub held: Pages,
    /// Memory beyond `held` that its faults wait for.
    pub wanted: Pages,
    /// Memory that it is taken to lack: see [`Need::missing`](crate::Need::missing).
    pub lacks: Pages,
    /// Its previous target; its limit if it is new.
    pub target: Pages,
    /// The size of its balloon that it was told last.
    pub balloon: Pages,
    /// The size that its balloon has.
    pub ballooned: Pages,
    /// Whether its balloon works.
    pub driver: Driver,
    /// The largest balloon that its guest can bear: see [`Spare`](crate::Spare). `None`: its guest
    /// gives no account of its memory.
    pub spare: Option<Pages>,
    /// The most free pages of its guest that hold nothing: see [`Spare::hollow`](crate::Spare).
    pub hollow: Pages,
    /// The speed at which its balloon grows.
    pub inflation: Inflation,
    /// The amounts that can be compressed and swapped out of it.
    pub pageable: Pageable,
    /// It has waited for memory in vain for a whole control period, and still gets none.
    pub waited: bool,
}

/// The amounts that can still be compressed and swapped out of a VM. Policy asks paging for no
/// more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pageable {
    /// Machine memory by which its store of compressed pages may still grow.
    pub store: Pages,
    /// Pages for which it has swap space.
    pub swap: Pages,
}

impl Pageable {
    /// The sum of both.
    pub fn total(&self) -> Pages {
        self.store.saturating_add(self.swap)
    }
}

/// Whether a VM's balloon works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// The guest has no driver, or has not booted yet.
    Absent,
    /// As far as is known, the driver reaches the sizes that it is told.
    Follows,
    /// The driver has not reached its size for too long.
    Stuck,
}

/// A quarter of the estimate: the headroom of a VM until its estimate has followed a new need. If
/// less, an unlucky sample (100 in a period are off by 5 % of memory at worst) squeezes a guest
/// below the memory that it uses. If more, little of an idle VM's memory counts as idle.
const HEADROOM_DIVISOR: u64 = 4;

impl Vm {
    /// Its largest possible balloon.
    pub(crate) fn largest_balloon(&self, rules: &Rules) -> Pages {
        rules.balloon(self.size).min(self.spare.unwrap_or(self.size))
    }

    /// The part of `held` that its balloon and paging can take.
    pub fn takeable(&self, rules: &Rules) -> Pages {
        let balloon = match self.driver {
            Driver::Follows => {
                self.held.saturating_sub(self.size.saturating_sub(self.largest_balloon(rules)))
            }
            Driver::Absent | Driver::Stuck => Pages::ZERO,
        };
        balloon.saturating_add(self.pageable.total()).min(self.held)
    }

    /// Its working set: its active memory and a quarter more, within its limit. None of it is taken
    /// while another VM holds idle memory beyond its entitlement.
    pub fn working_set(&self) -> Pages {
        let active = self.member.client.active;
        active.saturating_add(Pages(active.0 / HEADROOM_DIVISOR)).min(self.member.client.limit)
    }
}
