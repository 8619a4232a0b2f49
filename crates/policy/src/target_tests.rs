use plimsoll_units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entitlement::Client;

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

fn vm(held: u64, active: u64, wanted: u64) -> Vm {
    let client = Client { reservation: mib(64), limit: mib(256), shares: 1, active: mib(active) };
    Vm {
        member: Member { client, tax: None, pool: PoolId::ROOT },
        size: mib(256),
        held: mib(held),
        wanted: mib(wanted),
        target: mib(256),
        balloon: Pages(0),
        driver: Driver::Follows,
        compressed: Pages(0),
    }
}

/// The demo's host: four VMs of 256 MiB in 640 MiB.
fn host(free: u64, state: State) -> Host {
    Host {
        for_guests: mib(598),
        free: mib(free),
        thresholds: Thresholds::of_min_free(Bytes::mib(38)),
        state,
        elapsed: Duration::from_secs(60),
    }
}

/// Decides by the default rules, without pools.
fn decide(host: &Host, vms: &[Vm]) -> Vec<Decision> {
    super::decide(&Rules::default(), host, &PoolTree::default(), vms).vms
}

#[test]
fn nothing_is_taken_while_the_host_has_memory() {
    let vms = [vm(120, 10, 0), vm(200, 10, 0), vm(60, 10, 0)];
    let decisions = decide(&host(218, State::High), &vms);
    assert!(decisions.iter().all(|d| d.balloon == Pages(0)), "{decisions:?}");
}

#[test]
fn memory_goes_from_the_idle_to_the_one_that_needs_it() {
    let vms = [vm(180, 256, 4), vm(139, 5, 0), vm(139, 5, 0), vm(139, 5, 0)];
    let decisions = decide(&host(1, State::Low), &vms);
    assert_eq!((decisions[0].entitlement, decisions[0].balloon), (mib(256), Pages(0)));
    let freed: u64 = vms[1..].iter().zip(&decisions[1..]).map(|(v, d)| v.held.0 - d.target.0).sum();
    assert!(Pages(freed) >= mib(75), "{decisions:?}");
}

#[test]
fn a_balloon_gives_way_when_its_vm_is_entitled_to_more() {
    let squeezed = Vm { target: mib(100), ..vm(100, 250, 0) };
    let decisions = decide(&host(60, State::High), &[squeezed, vm(100, 5, 0), vm(100, 5, 0)]);
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
        for (d, v) in decide(&host(free, states[state]), &vms).iter().zip(&vms) {
            prop_assert!(d.entitlement <= d.target && d.target <= v.member.client.limit);
            prop_assert!(d.balloon.0 * 100 <= v.size.0 * 65);
        }
    }

    #[test]
    fn what_is_taken_brings_free_memory_to_high_where_entitlements_allow(held in prop::collection::vec(64..256u64, 4), free in 0..20u64) {
        let vms: Vec<Vm> = held.iter().map(|&h| vm(h, 5, 0)).collect();
        let host = host(free, State::Soft);
        let decisions = decide(&host, &vms);
        let taken: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub(d.target.0)).sum();
        let excess: u64 = vms.iter().zip(&decisions).map(|(v, d)| v.held.0.saturating_sub(d.entitlement.0)).sum();
        let needed = host.thresholds.high.0 - host.free.0;
        prop_assert!(taken >= needed.min(excess) && taken <= needed + 4, "{} {} {}", taken, needed, excess);
    }
}
