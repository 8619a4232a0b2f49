use plimsoll_units::Pages;

use crate::entitlement::{Client, Tax, entitlements};
use crate::state::{State, Thresholds};

/// Largest balloon, in percent of the VM's size: beyond it a guest that suddenly needs memory thrashes before
/// the balloon can give way, much below it ballooning reclaims too little (ESXi, `Mem.CtlMaxPercent` 65).
const MAX_BALLOON_PERCENT: u64 = 65;

/// The host, as far as targets depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Machine memory for guests: the budget less all overheads.
    pub for_guests: Pages,
    /// Machine memory promised to nobody.
    pub free: Pages,
    /// Its thresholds.
    pub thresholds: Thresholds,
    /// Its state.
    pub state: State,
}

/// A VM, as far as its target depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Guest-physical memory.
    pub size: Pages,
    /// Its parameters and activity. Its `limit` is at most `size`.
    pub client: Client,
    /// What it holds.
    pub held: Pages,
    /// What its faults wait for beyond its grant.
    pub wanted: Pages,
    /// The target that it had so far; its limit when it is new.
    pub target: Pages,
}

/// What policy decided for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it is entitled to.
    pub entitlement: Pages,
    /// What it may use: its mechanisms steer to it. At least its entitlement.
    pub target: Pages,
    /// The balloon that goes with the target.
    pub balloon: Pages,
}

/// Entitlements, targets and balloons of all VMs, in the order given.
///
/// Entitlements divide what is left when minFree stays free. A target never lies below the entitlement. As long as the host
/// has memory, targets only rise, by what is free beyond the high threshold. Once balloons have to work (state soft or
/// worse, or a VM waits for what it is entitled to) those who hold more than their entitlement give, in proportion
/// to what they hold beyond it, until what is free reaches the high threshold (Waldspurger 2002, section 6.3: targets aim
/// above high in every state).
pub fn decide(host: &Host, tax: Tax, vms: &[Vm]) -> Vec<Decision> {
    let clients: Vec<Client> = vms.iter().map(|vm| vm.client).collect();
    let available = host.for_guests.saturating_sub(host.thresholds.clear);
    let entitled = entitlements(available, tax, &clients);
    let owed: Pages = vms.iter().zip(&entitled).map(|(vm, e)| vm.wanted.min(e.saturating_sub(vm.held))).sum();
    let reclaiming = host.state >= State::Soft || owed > host.free.saturating_sub(host.thresholds.clear);
    let excess: Vec<Pages> = vms.iter().zip(&entitled).map(|(vm, e)| vm.held.saturating_sub(*e)).collect();
    let shortage =
        if reclaiming { (host.thresholds.high + owed).saturating_sub(host.free) } else { Pages::ZERO };
    let surplus = host.free.saturating_sub(host.thresholds.high + owed);
    let lacking: Vec<Pages> = vms.iter().map(|vm| vm.client.limit.saturating_sub(vm.target)).collect();
    let (all_excess, all_lacking) = (excess.iter().copied().sum(), lacking.iter().copied().sum());
    let decision = |i: usize| {
        let (vm, entitlement) = (&vms[i], entitled[i]);
        let wish = if reclaiming {
            vm.target.min(vm.held.saturating_sub(part(shortage, excess[i], all_excess)))
        } else {
            vm.target.saturating_add(part(surplus, lacking[i], all_lacking))
        };
        let target = wish.max(entitlement).min(vm.client.limit);
        let largest = Pages(vm.size.0 / 100 * MAX_BALLOON_PERCENT);
        Decision { entitlement, target, balloon: vm.size.saturating_sub(target).min(largest) }
    };
    (0..vms.len()).map(decision).collect()
}

/// The share of `whole` that falls to a weight of `weight` out of `all`, at most `weight` itself; rounded up.
fn part(whole: Pages, weight: Pages, all: Pages) -> Pages {
    if all == Pages::ZERO {
        return Pages::ZERO;
    }
    let share = (u128::from(whole.0) * u128::from(weight.0)).div_ceil(u128::from(all.0));
    Pages(u64::try_from(share).unwrap_or(u64::MAX)).min(weight)
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    fn vm(held: u64, active: u64, wanted: u64) -> Vm {
        let client = Client { reservation: mib(64), limit: mib(256), shares: 1, active: mib(active) };
        Vm { size: mib(256), client, held: mib(held), wanted: mib(wanted), target: mib(256) }
    }

    /// The demo's host: four VMs of 256 MiB in 640 MiB.
    fn host(free: u64, state: State) -> Host {
        Host {
            for_guests: mib(598),
            free: mib(free),
            thresholds: Thresholds::of_min_free(Bytes::mib(38)),
            state,
        }
    }

    #[test]
    fn nothing_is_taken_while_the_host_has_memory() {
        let vms = [vm(120, 10, 0), vm(200, 10, 0), vm(60, 10, 0)];
        let decisions = decide(&host(218, State::High), Tax::DEFAULT, &vms);
        assert!(decisions.iter().all(|d| d.balloon == Pages(0)), "{decisions:?}");
    }

    #[test]
    fn memory_goes_from_the_idle_to_the_one_that_needs_it() {
        let vms = [vm(180, 256, 4), vm(139, 5, 0), vm(139, 5, 0), vm(139, 5, 0)];
        let decisions = decide(&host(1, State::Low), Tax::DEFAULT, &vms);
        assert_eq!((decisions[0].entitlement, decisions[0].balloon), (mib(256), Pages(0)));
        let freed: u64 = vms[1..].iter().zip(&decisions[1..]).map(|(v, d)| v.held.0 - d.target.0).sum();
        assert!(Pages(freed) >= mib(75), "{decisions:?}");
    }

    #[test]
    fn a_balloon_gives_way_when_its_vm_is_entitled_to_more() {
        let squeezed = Vm { target: mib(100), ..vm(100, 250, 0) };
        let decisions =
            decide(&host(60, State::High), Tax::DEFAULT, &[squeezed, vm(100, 5, 0), vm(100, 5, 0)]);
        assert_eq!(decisions[0].balloon, Pages(0), "{decisions:?}");
    }

    proptest! {
        #[test]
        fn targets_stay_between_entitlement_and_limit_and_balloons_within_their_bound(
            facts in prop::collection::vec((0..300u64, 0..300u64, 0..50u64, 0..256u64), 1..6), free in 0..700u64, state in 0usize..5,
        ) {
            let states = [State::High, State::Clear, State::Soft, State::Hard, State::Low];
            let vms: Vec<Vm> =
                facts.into_iter().map(|(h, a, w, t)| Vm { target: mib(t), ..vm(h.min(256), a, w) }).collect();
            for (d, v) in decide(&host(free, states[state]), Tax::DEFAULT, &vms).iter().zip(&vms) {
                prop_assert!(d.entitlement <= d.target && d.target <= v.client.limit);
                prop_assert!(d.balloon.0 * 100 <= v.size.0 * MAX_BALLOON_PERCENT);
            }
        }

        #[test]
        fn what_is_taken_brings_free_memory_to_high_where_entitlements_allow(held in prop::collection::vec(64..256u64, 4), free in 0..20u64) {
            let vms: Vec<Vm> = held.iter().map(|&h| vm(h, 5, 0)).collect();
            let host = host(free, State::Soft);
            let decisions = decide(&host, Tax::DEFAULT, &vms);
            let taken: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub(d.target.0)).sum();
            let excess: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub(d.entitlement.0)).sum();
            let needed = host.thresholds.high.0 - host.free.0;
            prop_assert!(taken >= needed.min(excess) && taken <= needed + 4, "{} {} {}", taken, needed, excess);
        }
    }
}
