//! What VMs had at each look, on paper and in earnest.

use plimsoll_protocol::status::VmStatus;
use plimsoll_sim::VmFrame;
use plimsoll_units::Bytes;

/// A VM at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Machine memory that it is charged.
    pub(super) has: Bytes,
    pub(super) entitlement: Bytes,
    /// What it is taken to use.
    pub(super) active: Bytes,
    pub(super) ballooned: Bytes,
    pub(super) swapped: Bytes,
}

impl Look {
    pub(super) fn on_paper(vm: &VmFrame) -> Self {
        Self {
            has: vm.held.bytes(),
            entitlement: vm.entitlement.bytes(),
            active: vm.estimate.bytes(),
            ballooned: vm.ballooned.bytes(),
            swapped: vm.swapped.bytes(),
        }
    }

    pub(super) fn in_earnest(vm: &VmStatus) -> Self {
        Self {
            has: vm.charge(),
            entitlement: vm.entitlement,
            active: vm.active,
            ballooned: vm.ballooned,
            swapped: vm.paging.swapped,
        }
    }
}

/// The largest difference of what a VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Largest {
    pub(super) difference: Bytes,
    /// The place of the look, from 0.
    pub(super) look: usize,
    /// The place of the VM.
    pub(super) vm: usize,
}

/// Returns where two courses differ most, each a list of looks at all VMs; `None` of empty ones.
pub(super) fn largest(paper: &[Vec<Look>], earnest: &[Vec<Look>]) -> Option<Largest> {
    let looks = paper.iter().zip(earnest).enumerate();
    let pairs = looks.flat_map(|(look, (paper, earnest))| {
        paper.iter().zip(earnest).enumerate().map(move |(vm, (paper, earnest))| Largest {
            difference: Bytes(paper.has.0.abs_diff(earnest.has.0)),
            look,
            vm,
        })
    });
    pairs.max_by_key(|pair| pair.difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(has: u64) -> Look {
        Look { has: Bytes(has), ..Look::default() }
    }

    #[test]
    fn the_largest_difference_is_found_whichever_side_has_more() {
        let paper = [vec![look(10), look(20)], vec![look(30), look(40)]];
        let earnest = [vec![look(11), look(20)], vec![look(30), look(35)]];
        let found = largest(&paper, &earnest);
        assert_eq!(found, Some(Largest { difference: Bytes(5), look: 1, vm: 1 }));
        assert_eq!(largest(&earnest, &paper), found);
        assert_eq!(largest(&[], &[]), None);
    }
}
