use std::time::Duration;

use plimsoll_units::Pages;

use crate::inflation::step;
use crate::rules::Rules;
use crate::vm::{Driver, Vm};

/// The reason for a balloon's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Sizing {
    /// The VM may use all its memory.
    NotNeeded,
    /// It holds the memory between target and size.
    FollowsTarget,
    /// As [`Self::FollowsTarget`], with the target at the VM's working set: other VMs, which hold
    /// idle memory, give the rest.
    WorkingSet,
    /// The target asks for more; it has the largest size of any balloon.
    Largest,
    /// The target asks for more; it has the largest size that its guest can bear.
    GuestShort,
    /// The target asks for more, but its VM lacks memory and holds no more than its target.
    VmLacks,
    /// The target asks for more, but no other VM needs the memory now: it grows step by step.
    Unhurried,
    /// The target asks for more, but the balloon is slow and would bring nothing in time: it grows
    /// step by step, and paging brings the memory.
    TooSlow,
    /// It grows towards its size at the largest rate.
    GrowsSlowly,
    /// There is no driver: a driver that comes will be told this size.
    NoDriver,
    /// The driver has not reached its size for too long: the next mechanism reclaims in its place.
    Stuck,
}

/// The balloon that policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balloon {
    pub(crate) size: Pages,
    pub(crate) why: Sizing,
    /// The memory that it will have brought back in time: see [`Inflation`](crate::Inflation).
    pub(crate) brings: Pages,
}

/// The aim of a balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    /// The memory that its VM is to use.
    pub(crate) target: Pages,
    /// The most that its VM may have.
    pub(crate) most: Pages,
    /// Memory has to come now.
    pub(crate) takes: bool,
    /// Without the working set the target would be lower.
    pub(crate) spared: bool,
}

impl Balloon {
    /// The balloon of `vm` that goes with `goal`.
    ///
    /// A balloon grows as fast as it may to take memory, and to hold its VM to `most`. Otherwise it
    /// grows step by step: Linux fills it with free pages first, which may hold nothing and cost
    /// processor time that other VMs need. So does a slow one that would bring nothing in time. It
    /// does grow: only a balloon tells a guest of its target, and a guest that does not know takes
    /// free pages where it could reuse its own.
    ///
    /// Only a driver that follows takes its time. One that comes later finds the size that its VM
    /// is to have, and one that is stuck does not reach its size by being told of less.
    pub(crate) fn new(rules: &Rules, elapsed: Duration, vm: &Vm, goal: &Goal) -> Self {
        let Goal { target, most, takes, spared } = *goal;
        let wish = vm.size.saturating_sub(target);
        let largest = wish.min(vm.largest_balloon(rules));
        // A balloon that grew in a guest that needs memory would take the VM's new grants.
        let lacks = vm.lacks > Pages::ZERO && vm.held <= target.saturating_add(Pages::CHUNK);
        let grown = largest.min(vm.balloon.saturating_add(growth(rules, elapsed)));
        let in_time = vm.inflation.brings(rules, vm.hollow);
        let slow = takes && in_time.is_some() && (vm.held <= target || in_time == Some(Pages::ZERO));
        let brings = match vm.driver {
            Driver::Follows => {
                vm.held.saturating_sub(target.max(vm.size - largest)).min(in_time.unwrap_or(Pages(u64::MAX)))
            }
            Driver::Absent | Driver::Stuck => Pages::ZERO,
        };
        // A balloon that stands still takes no processor time, and shows whether it is stuck.
        let hurries = takes && (!slow || vm.inflation.is_still());
        let size = if lacks {
            grown.min(vm.balloon)
        } else if hurries || vm.driver != Driver::Follows {
            grown
        } else {
            let reached = vm.ballooned >= vm.balloon;
            let next = if reached { vm.balloon.saturating_add(step(vm.size)) } else { vm.ballooned };
            grown.min(next.max(vm.size.saturating_sub(most)))
        };
        let why = match vm.driver {
            _ if wish == Pages::ZERO => Sizing::NotNeeded,
            Driver::Absent => Sizing::NoDriver,
            Driver::Stuck => Sizing::Stuck,
            Driver::Follows if size < largest && lacks => Sizing::VmLacks,
            Driver::Follows if size < grown && slow => Sizing::TooSlow,
            Driver::Follows if size < grown => Sizing::Unhurried,
            Driver::Follows if size < largest => Sizing::GrowsSlowly,
            Driver::Follows if largest < wish.min(rules.balloon(vm.size)) => Sizing::GuestShort,
            Driver::Follows if largest < wish => Sizing::Largest,
            Driver::Follows if spared => Sizing::WorkingSet,
            Driver::Follows => Sizing::FollowsTarget,
        };
        Self { size, why, brings }
    }
}

/// The largest growth of a balloon in `elapsed`.
fn growth(rules: &Rules, elapsed: Duration) -> Pages {
    let pages = u128::from(rules.inflation.0).saturating_mul(elapsed.as_nanos()) / 1_000_000_000;
    Pages(u64::try_from(pages).unwrap_or(u64::MAX))
}
