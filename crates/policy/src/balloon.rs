use std::time::Duration;

use plimsoll_units::Pages;

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
    /// The target asks for more, but nothing has to come: the VM holds no more than its target, or
    /// no other VM needs the memory.
    Rests,
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
    /// The memory that it will have brought back at its largest size.
    pub(crate) brings: Pages,
}

/// The aim of a balloon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    /// The memory that its VM is to use.
    pub(crate) target: Pages,
    /// The most that its VM may have.
    pub(crate) most: Pages,
    /// Balloons take memory now.
    pub(crate) takes: bool,
    /// Without the working set the target would be lower.
    pub(crate) spared: bool,
}

impl Balloon {
    /// The balloon of `vm` that goes with `goal`.
    ///
    /// A balloon grows to take memory, and else only to hold its VM to `most`. Linux fills it with
    /// free pages first. So a larger balloon of a VM that holds no more than its target costs
    /// processor time, and brings nothing.
    pub(crate) fn new(rules: &Rules, elapsed: Duration, vm: &Vm, goal: &Goal) -> Self {
        let Goal { target, most, takes, spared } = *goal;
        let wish = vm.size.saturating_sub(target);
        let largest = wish.min(vm.largest_balloon(rules));
        // A balloon that grew in a guest that needs memory would take the VM's new grants.
        let lacks = vm.lacks > Pages::ZERO && vm.held <= target.saturating_add(Pages::CHUNK);
        let rests = !takes || vm.held <= target;
        let grown = largest.min(vm.balloon.saturating_add(growth(rules, elapsed)));
        // One that grows no more stops where it is.
        let stopped = vm.balloon.min(vm.ballooned);
        let size = if lacks {
            grown.min(stopped)
        } else if rests {
            grown.min(stopped.max(vm.size.saturating_sub(most)))
        } else {
            grown
        };
        let why = match vm.driver {
            _ if wish == Pages::ZERO => Sizing::NotNeeded,
            Driver::Absent => Sizing::NoDriver,
            Driver::Stuck => Sizing::Stuck,
            Driver::Follows if size < largest && lacks => Sizing::VmLacks,
            Driver::Follows if rests && spared => Sizing::WorkingSet,
            Driver::Follows if size < grown => Sizing::Rests,
            Driver::Follows if size < largest => Sizing::GrowsSlowly,
            Driver::Follows if largest < wish.min(rules.balloon(vm.size)) => Sizing::GuestShort,
            Driver::Follows if largest < wish => Sizing::Largest,
            Driver::Follows if spared => Sizing::WorkingSet,
            Driver::Follows => Sizing::FollowsTarget,
        };
        let brings = match vm.driver {
            Driver::Follows => vm.held.saturating_sub(target.max(vm.size - largest)),
            Driver::Absent | Driver::Stuck => Pages::ZERO,
        };
        Self { size, why, brings }
    }
}

/// The largest growth of a balloon in `elapsed`.
fn growth(rules: &Rules, elapsed: Duration) -> Pages {
    let pages = u128::from(rules.inflation.0).saturating_mul(elapsed.as_nanos()) / 1_000_000_000;
    Pages(u64::try_from(pages).unwrap_or(u64::MAX))
}
