use std::time::Duration;

use plimsoll_units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::division::divide;
use crate::inflation::Inflation;
use crate::pool::NamedPool;
use crate::state::{State, Thresholds};
use crate::vm::Driver;

fn vm(size: u64, client: Client, pool: PoolId) -> Vm {
    Vm {
        member: Member { client, tax: None, pool },
        size: Pages(size),
        held: Pages(0),
        wanted: Pages(0),
        target: client.limit,
        balloon: Pages(0),
        ballooned: Pages::ZERO,
        driver: Driver::Follows,
        spare: None,
        hollow: Pages::ZERO,
        inflation: Inflation::default(),
        lacks: Pages::ZERO,
        pageable: crate::Pageable::default(),
        waited: false,
    }
}

fn client(reservation: u64, limit: u64, shares: u64, active: u64) -> Client {
    Client { reservation: Pages(reservation), limit: Pages(limit), shares, active: Pages(active) }
}

fn named(name: &str, parent: Option<&str>, shares: u64, reservation: u64, limit: Option<u64>) -> NamedPool {
    let pool = Pool { shares, reservation: Pages(reservation), limit: limit.map(Pages), expandable: true };
    NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
}

fn host(for_guests: u64) -> Host {
    let thresholds = Thresholds::of_min_free(Bytes(0));
    Host {
        for_guests: Pages(for_guests),
        free: Pages(0),
        withheld: Pages::ZERO,
        thresholds,
        state: State::High,
        strained: false,
        elapsed: Duration::ZERO,
    }
}

fn remedies_of(memory: u64, pools: &PoolTree, vms: &[Vm], index: usize, more: u64) -> Vec<Remedy> {
    remedies(&Rules::default(), &host(memory), pools, vms, index, Pages(more))
}

fn entitled(memory: u64, pools: &PoolTree, vms: &[Vm]) -> Vec<Pages> {
    let members: Vec<Member> = vms.iter().map(|vm| vm.member).collect();
    divide(Pages(memory), Tax::DEFAULT, pools, &members).vms
}

#[test]
fn a_busy_vm_among_equals_is_told_its_shares_and_reservation_and_the_hosts_memory() {
    let pools = PoolTree::default();
    let vms = [0, 1].map(|_| vm(1000, client(0, 1000, 100, 1000), PoolId::ROOT));
    // 500 each: 700 take 7/3 of the other's shares, with a hundredth to spare, or 400 pages more
    // for both.
    let changes: Vec<Change> = remedies_of(1000, &pools, &vms, 0, 200).iter().map(|r| r.change).collect();
    let [Change::Shares(shares), Change::Reservation(Pages(700)), Change::Memory(Pages(memory))] =
        changes[..]
    else {
        panic!("{changes:?}");
    };
    assert!((233..=236).contains(&shares), "{shares}");
    assert!((399..=404).contains(&memory), "{memory}");
}

#[test]
fn a_taxed_vm_is_told_to_use_its_memory_or_to_be_exempt() {
    let pools = PoolTree::default();
    let vms =
        [vm(1000, client(0, 1000, 1, 0), PoolId::ROOT), vm(1000, client(0, 1000, 1, 1000), PoolId::ROOT)];
    assert_eq!(entitled(1000, &pools, &vms), [Pages(200), Pages(800)]);
    let got = remedies_of(1000, &pools, &vms, 0, 300);
    assert_eq!(got[0], Remedy { change: Change::Active(Pages(500)), entitlement: Pages(500) });
    assert_eq!(got[1], Remedy { change: Change::Untaxed, entitlement: Pages(500) });
}

#[test]
fn a_limit_is_named_where_it_is_what_binds() {
    let pools = PoolTree::default();
    let limited = vm(1000, client(0, 300, 100, 1000), PoolId::ROOT);
    let other = vm(1000, client(0, 1000, 100, 1000), PoolId::ROOT);
    let got = remedies_of(1000, &pools, &[limited, other], 0, 100);
    assert_eq!(got, [Remedy { change: Change::Limit(Pages(400)), entitlement: Pages(400) }]);
    let whole = vm(300, client(0, 300, 100, 300), PoolId::ROOT);
    // Its additional memory is idle at first, and taxed: 300 + 4 * 80 = 620.
    let got = remedies_of(1000, &pools, &[whole, other], 0, 100);
    assert_eq!(got, [Remedy { change: Change::Size(Pages(400)), entitlement: Pages(380) }]);
}

#[test]
fn a_pool_is_named_where_its_limit_binds() {
    let pools = PoolTree::new(&[named("a", None, 100, 0, Some(300))]).unwrap();
    let id = pools.find("a").unwrap();
    let vms = [id, id, PoolId::ROOT].map(|pool| vm(1000, client(0, 1000, 100, 1000), pool));
    let got = remedies_of(1000, &pools, &vms, 0, 50);
    let limit = got.iter().find_map(|r| match r.change {
        Change::PoolLimit(pool, limit) => Some((pool, limit)),
        _ => None,
    });
    // The pool divides it: twice 200.
    assert!(limit.is_some_and(|(pool, limit)| pool == id && (398..=404).contains(&limit.0)), "{got:?}");
    assert!(!got.iter().any(|r| matches!(r.change, Change::PoolShares(..) | Change::Memory(_))), "{got:?}");
}

#[test]
fn nobody_is_told_to_reserve_what_others_have_reserved() {
    let pools = PoolTree::default();
    let vms = [
        vm(1000, client(0, 1000, 1, 1000), PoolId::ROOT),
        vm(1000, client(600, 1000, 100, 1000), PoolId::ROOT),
    ];
    let got = remedies_of(1000, &pools, &vms, 0, 900);
    let reservation = got.iter().find_map(|r| match r.change {
        Change::Reservation(reservation) => Some((reservation, r.entitlement)),
        _ => None,
    });
    assert!(reservation.is_some_and(|(r, e)| r == e && r.0 > 390 && r.0 <= 400), "{got:?}");
}

#[test]
fn nobody_is_told_to_reserve_more_than_its_pool_stands_for() {
    let mut rigid = named("a", None, 100, 250, None);
    rigid.pool.expandable = false;
    let pools = PoolTree::new(&[rigid]).unwrap();
    let id = pools.find("a").unwrap();
    let vms = [id, id, PoolId::ROOT].map(|pool| vm(1000, client(0, 1000, 100, 1000), pool));
    let largest = |more| {
        remedies_of(800, &pools, &vms, 0, more).iter().find_map(|r| match r.change {
            Change::Reservation(reservation) => Some(reservation.0),
            _ => None,
        })
    };
    // Shares bring the pool 400, of which 150 are promised to no VM.
    assert_eq!(largest(40), Some(240));
    assert!(largest(100).is_some_and(|most| (247..=250).contains(&most)), "{:?}", largest(100));
}

#[test]
fn a_pool_is_told_to_reserve_what_the_one_above_it_stands_for() {
    let mut rigid = named("a", None, 100, 250, None);
    rigid.pool.expandable = false;
    let inside = |name| named(name, Some("a"), 100, 0, None);
    let pools = PoolTree::new(&[rigid, inside("b"), inside("c")]).unwrap();
    let ids = ["b", "c"].map(|name| pools.find(name).unwrap());
    let vms = [ids[0], ids[1], PoolId::ROOT].map(|pool| vm(1000, client(0, 1000, 100, 1000), pool));
    // Shares bring "a" 400 and "b" 200 of them; "a" backs 250.
    let got = remedies_of(800, &pools, &vms, 0, 100);
    let reserved = got.iter().find_map(|r| match r.change {
        Change::PoolReservation(pool, reservation) if pool == ids[0] => Some(reservation.0),
        _ => None,
    });
    assert!(reserved.is_some_and(|r| (240..=250).contains(&r)), "{got:?}");
}

/// Applies a change as an operator would.
fn apply(change: Change, memory: &mut u64, pools: &mut PoolTree, vm: &mut Vm) {
    let edit = |pools: &mut PoolTree, id: PoolId, edit: &dyn Fn(&mut Pool)| {
        let mut named: Vec<NamedPool> = pools.ids().filter_map(|id| pools.get(id).cloned()).collect();
        edit(&mut named[id.index() - 1].pool);
        *pools = PoolTree::new(&named).unwrap();
    };
    let client = &mut vm.member.client;
    match change {
        Change::Active(active) => client.active = active,
        Change::Untaxed => vm.member.tax = Some(Tax::NONE),
        Change::Limit(limit) | Change::Size(limit) => client.limit = limit,
        Change::Shares(shares) => client.shares = shares,
        Change::Reservation(reservation) => client.reservation = reservation,
        Change::PoolLimit(id, limit) => edit(pools, id, &|pool| pool.limit = Some(limit)),
        Change::PoolShares(id, shares) => edit(pools, id, &|pool| pool.shares = shares),
        Change::PoolReservation(id, reservation) => edit(pools, id, &|pool| pool.reservation = reservation),
        Change::Memory(more) => *memory += more.0,
    }
}

proptest! {
    #[test]
    fn every_remedy_does_what_it_says_and_takes_no_guarantee_from_anybody(
        clients in prop::collection::vec((0..200u64, 100..1000u64, 1..500u64, 0..1000u64, 0..4usize), 2..6),
        limit in prop::option::of(200..1500u64), reservation in 0..200u64, memory in 500..3000u64, more in 1..400u64,
    ) {
        let pools = PoolTree::new(&[
            named("a", None, 100, reservation, limit), named("b", Some("a"), 50, 0, None), named("c", None, 100, 0, None),
        ]).unwrap();
        let ids = [PoolId::ROOT, pools.find("a").unwrap(), pools.find("b").unwrap(), pools.find("c").unwrap()];
        let vms: Vec<Vm> = clients.iter()
            .map(|&(reservation, limit, shares, active, pool)| {
                vm(1000, client(reservation.min(limit), limit, shares, active), ids[pool])
            }).collect();
        let before = entitled(memory, &pools, &vms)[0];
        for remedy in remedies_of(memory, &pools, &vms, 0, more) {
            let (mut memory, mut pools, mut vms) = (memory, pools.clone(), vms.clone());
            apply(remedy.change, &mut memory, &mut pools, &mut vms[0]);
            let after = entitled(memory, &pools, &vms);
            prop_assert_eq!(after[0], remedy.entitlement, "{:?}", remedy);
            prop_assert!(after[0] > before, "{:?}", remedy);
        }
    }
}
