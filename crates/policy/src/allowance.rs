use plimsoll_units::Pages;

use crate::Thresholds;

/// A VM with faults that wait for memory beyond its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Pages that it waits for.
    pub wanted: Pages,
    /// Its grant.
    pub grant: Pages,
    /// Its entitlement.
    pub entitlement: Pages,
    /// The smaller of its limit and size: its grant never exceeds it.
    pub limit: Pages,
    /// Its reservation.
    pub reservation: Pages,
    /// It has waited for a whole control period.
    pub patient: bool,
}

/// How much a VM that waits may have at once: what it waits for, or a whole chunk where it waits for less. One page at a
/// time would cost a message a page; what it does not use comes back.
///
/// `free` is what the ledger has promised to nobody, `withheld` the part of it that keeps the *other* VMs' promises: the
/// sum of what each has reserved and not been granted. That part is never touched, since nothing but a balloon could
/// bring it back.
///
/// Up to its reservation a VM may take everything else; up to its entitlement what leaves the host above the low threshold;
/// beyond it what leaves it in state high. A VM that has waited in vain for a whole period gets a chunk even of the rest:
/// its guest has to run for its balloon to inflate, and others may wait for just that.
pub fn allowance(vm: &Waiting, free: Pages, withheld: Pages, thresholds: &Thresholds) -> Pages {
    let open = free.saturating_sub(withheld);
    let reserved = vm.reservation.saturating_sub(vm.grant).min(open);
    let entitled = vm.entitlement.saturating_sub(vm.grant).min(open.saturating_sub(thresholds.low));
    let spare = open.saturating_sub(thresholds.clear);
    let drip = if vm.patient { Pages::CHUNK.min(open) } else { Pages::ZERO };
    let room = vm.limit.saturating_sub(vm.grant);
    let wish = if vm.wanted == Pages::ZERO { Pages::ZERO } else { vm.wanted.max(Pages::CHUNK) };
    wish.min(reserved.max(entitled).max(spare).max(drip)).min(room)
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    fn thresholds() -> Thresholds {
        Thresholds::of_min_free(Bytes::mib(100))
    }

    fn waiting() -> Waiting {
        Waiting {
            wanted: mib(50),
            grant: mib(100),
            entitlement: mib(120),
            limit: mib(256),
            reservation: mib(64),
            patient: false,
        }
    }

    #[test]
    fn an_entitled_vm_takes_from_the_reserve_and_another_does_not() {
        assert_eq!(allowance(&waiting(), mib(60), Pages(0), &thresholds()), mib(20));
        let beyond = Waiting { entitlement: mib(90), ..waiting() };
        assert_eq!(allowance(&beyond, mib(60), Pages(0), &thresholds()), Pages(0));
        assert_eq!(allowance(&beyond, mib(130), Pages(0), &thresholds()), mib(30));
    }

    #[test]
    fn patience_is_rewarded_with_a_chunk_so_that_the_balloon_can_inflate() {
        let stuck = Waiting { entitlement: mib(90), patient: true, ..waiting() };
        assert_eq!(allowance(&stuck, mib(60), Pages(0), &thresholds()), Pages::CHUNK);
        assert_eq!(allowance(&stuck, mib(16), Pages(0), &thresholds()), Pages::CHUNK);
        assert_eq!(allowance(&stuck, mib(16), mib(16), &thresholds()), Pages(0));
    }

    #[test]
    fn a_reservation_is_served_whatever_the_state() {
        let reserved = Waiting { grant: mib(60), entitlement: mib(60), ..waiting() };
        assert_eq!(allowance(&reserved, mib(10), Pages(0), &thresholds()), mib(4));
    }

    #[test]
    fn a_single_page_comes_with_the_rest_of_a_chunk() {
        let one = Waiting { wanted: Pages(1), ..waiting() };
        assert_eq!(allowance(&one, mib(60), Pages(0), &thresholds()), Pages::CHUNK);
        assert_eq!(allowance(&one, mib(16) + Pages(3), Pages(0), &thresholds()), Pages(3));
        let none = Waiting { wanted: Pages(0), ..waiting() };
        assert_eq!(allowance(&none, mib(600), Pages(0), &thresholds()), Pages(0));
    }

    proptest! {
        #[test]
        fn nobody_eats_anothers_reservation_or_exceeds_a_limit(
            wanted in 0..1000u64, grant in 0..1000u64, entitlement in 0..1000u64, limit in 0..1000u64,
            reservation in 0..1000u64, patient: bool, free in 0..1000u64, withheld in 0..1000u64, min_free in 0..1000u64,
        ) {
            let vm = Waiting {
                wanted: Pages(wanted), grant: Pages(grant), entitlement: Pages(entitlement), limit: Pages(limit),
                reservation: Pages(reservation), patient,
            };
            let given = allowance(&vm, Pages(free), Pages(withheld), &Thresholds::of_min_free(Bytes(min_free * 4096)));
            prop_assert!(given.0 <= wanted.max(512) && given.0 <= free.saturating_sub(withheld));
            prop_assert!(given.0 == 0 || grant + given.0 <= limit);
        }
    }
}
