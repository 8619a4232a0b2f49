use std::time::Duration;

use plimsoll_units::Pages;

use crate::{Driver, Rules, Vm};

/// Why a balloon has the size that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Sizing {
    /// The VM may use all its memory.
    NotNeeded,
    /// It holds what lies between target and size.
    FollowsTarget,
    /// As [`Self::FollowsTarget`], and the target stands at the VM's working set: what else has to
    /// be reclaimed comes from others, who hold idle memory.
    WorkingSet,
    /// It would be larger, and is as large as any may be.
    Largest,
    /// It would be larger, and is as large as its guest can bear.
    GuestShort,
    /// It would be larger, but its VM lacks memory, and holds no more than its target: there is
    /// nothing to take.
    VmLacks,
    /// It grows towards its size as fast as any may.
    GrowsSlowly,
    /// There is no driver: the size is what a driver will be told when it comes.
    NoDriver,
    /// The driver has not done what it was told for too long: the next mechanism reclaims in its
    /// place.
    Stuck,
}

/// A balloon as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balloon {
    pub(crate) size: Pages,
    pub(crate) why: Sizing,
    /// What it will have brought back when it is as large as it may be.
    pub(crate) brings: Pages,
}

impl Balloon {
    /// The balloon that goes with `target`. `spared`: the target would be lower, were it not for
    /// the working set.
    pub(crate) fn new(rules: &Rules, elapsed: Duration, vm: &Vm, target: Pages, spared: bool) -> Self {
        let wish = vm.size.saturating_sub(target);
        let largest = wish.min(vm.largest_balloon(rules));
        // A balloon that grew in a guest which needs memory would take what the VM is given for it.
        let lacks = vm.lacks > Pages::ZERO && vm.held <= target.saturating_add(Pages::CHUNK);
        let growth = if lacks { Pages::ZERO } else { growth(rules, elapsed) };
        let size = largest.min(vm.balloon.saturating_add(growth));
        let why = match vm.driver {
            _ if wish == Pages::ZERO => Sizing::NotNeeded,
            Driver::Absent => Sizing::NoDriver,
            Driver::Stuck => Sizing::Stuck,
            Driver::Follows if size < largest && lacks => Sizing::VmLacks,
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

/// How much a balloon may grow in `elapsed`.
fn growth(rules: &Rules, elapsed: Duration) -> Pages {
    let pages = u128::from(rules.inflation.0).saturating_mul(elapsed.as_nanos()) / 1_000_000_000;
    Pages(u64::try_from(pages).unwrap_or(u64::MAX))
}
