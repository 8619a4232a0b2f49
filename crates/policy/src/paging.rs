//! The amounts that are compressed and swapped out of each VM.

use plimsoll_units::Pages;

use crate::decision::Reclaim;
use crate::fraction::part;
use crate::host::Host;
use crate::mechanisms::{Mechanisms, Paging};
use crate::vm::Vm;

/// The memory that VMs lack of their entitlements and that is not free: it is paged out of other
/// VMs at once.
pub(crate) struct Due {
    /// Without free memory above [`Thresholds::reserve`](crate::Thresholds::reserve), which those
    /// VMs get anyway: see [`Grants`](crate::Grants).
    due: Pages,
    /// The sum of the memory that VMs above their targets can give.
    all: Pages,
}

impl Due {
    /// The part of `due` that has to be paged out of `vms` on `host`.
    pub(crate) fn new(host: &Host, due: Pages, vms: &[Vm], targets: &[Pages]) -> Self {
        let there = host.free.saturating_sub(host.withheld).saturating_sub(host.thresholds.reserve());
        let all = vms.iter().zip(targets).map(|(vm, target)| can_give(vm, *target));
        Self { due: due.saturating_sub(there), all: all.fold(Pages::ZERO, Pages::saturating_add) }
    }

    /// The part of `vm`, whose target is `target`.
    pub(crate) fn of(&self, vm: &Vm, target: Pages) -> Pages {
        part(self.due, can_give(vm, target), self.all)
    }
}

/// The memory above `target` that paging can take from `vm`.
fn can_give(vm: &Vm, target: Pages) -> Pages {
    vm.held.saturating_sub(target).min(vm.pageable.total())
}

/// The memory above `target` that `mechanisms` page out of `vm`, whose balloon brings `balloon` of
/// it.
pub(crate) fn paged(mechanisms: Mechanisms, vm: &Vm, target: Pages, balloon: Pages) -> Pages {
    let above = vm.held.saturating_sub(target);
    match mechanisms.paging {
        Paging::Off => Pages::ZERO,
        Paging::WhereNoBalloonCan => above.saturating_sub(balloon),
        Paging::Everybody => above,
    }
}

impl Reclaim {
    /// The amounts above `target` that `mechanisms` take from `vm`: `balloon` by its balloon, and
    /// `paged` by paging, as far as that is possible.
    pub(crate) fn new(mechanisms: Mechanisms, vm: &Vm, target: Pages, balloon: Pages, paged: Pages) -> Self {
        // A page that shrinks to half frees as much memory as its compressed half takes.
        let compression = paged.min(vm.pageable.store);
        let swap = (paged - compression).min(vm.pageable.swap);
        // A blocked VM without pages to take would stand still for ever: its balloon cannot run.
        let blocks = mechanisms.block && compression.saturating_add(swap) > Pages::ZERO;
        let block = if blocks { vm.held.saturating_sub(target) } else { Pages::ZERO };
        Self { balloon, compression, swap, block }
    }
}

#[cfg(test)]
mod tests;
