use proptest::prelude::*;

use super::*;
use crate::any_host::{any_case, any_client, any_tax, client, member, named, pool};
use crate::bounds::effective_bounds;
use crate::entitlement::entitlements;
use crate::pool::Pool;

const MIB: u64 = 256;

#[test]
fn shares_divide_among_siblings_only() {
    // Two departments, 2 : 1. The number of VMs in the smaller one does not raise its part.
    let tree = PoolTree::new(&[named("a", None, pool(2000, 0, None)), named("b", None, pool(1000, 0, None))])
        .unwrap();
    let busy = client(0, 1024 * MIB, 1000, 1024 * MIB);
    let mut members = vec![member(&tree, Some("a"), busy)];
    members.extend((0..4).map(|_| member(&tree, Some("b"), busy)));
    let division = divide(Pages(1200 * MIB), Tax::DEFAULT, &tree, &members);
    assert_eq!(division.vms, [800, 100, 100, 100, 100].map(|mib| Pages(mib * MIB)));
    assert_eq!(division.pools, [1200, 800, 400].map(|mib| Pages(mib * MIB)));
    assert_eq!(division.level, (400 * MIB) as f64 / 1000.0);
}

#[test]
fn a_pools_reservation_and_limit_bind_its_vms_together() {
    let pools = [named("kept", None, pool(1, 600, None)), named("capped", None, pool(1000, 0, Some(300)))];
    let tree = PoolTree::new(&pools).unwrap();
    let busy = client(0, 1000, 10, 1000);
    let members = [("kept", busy), ("kept", busy), ("capped", busy)].map(|(n, c)| member(&tree, Some(n), c));
    assert_eq!(divide(Pages(1000), Tax::NONE, &tree, &members).vms, [350, 350, 300].map(Pages));
    assert_eq!(divide(Pages(800), Tax::NONE, &tree, &members).vms, [300, 300, 200].map(Pages));
    let bounds = effective_bounds(Pages(800), &tree, &members);
    assert_eq!(bounds[2], EffectiveBounds { reservation: Pages(0), limit: Pages(300) });
}

#[test]
fn an_expandable_reservation_is_borrowed_from_above_and_another_is_not() {
    let rigid = Pool { expandable: false, ..pool(1, 100, None) };
    let pools = [named("a", None, pool(1, 100, None)), named("b", None, rigid)];
    let tree = PoolTree::new(&pools).unwrap();
    let members = ["a", "b"].map(|n| member(&tree, Some(n), client(300, 1000, 10, 1000)));
    let bounds = effective_bounds(Pages(500), &tree, &members);
    assert_eq!([bounds[0].reservation, bounds[1].reservation], [Pages(300), Pages(100)]);
    // The host guarantees `b` 100 pages. `a` has its 300, and shares divide the rest.
    let scarce = divide(Pages(450), Tax::NONE, &tree, &members);
    assert_eq!(scarce.vms, [Pages(300), Pages(150)]);
    let shortfall = Shortfall { pool: tree.find("b").unwrap(), reserved: Pages(300), has: Pages(150) };
    assert_eq!(scarce.shortfalls, [shortfall]);
    let plenty = divide(Pages(800), Tax::NONE, &tree, &members);
    assert_eq!((plenty.vms, plenty.shortfalls), (vec![Pages(400), Pages(400)], vec![]));
}

#[test]
fn after_a_loss_of_memory_reservations_shrink_in_proportion() {
    let tree = PoolTree::new(&[named("a", None, pool(1, 300, None))]).unwrap();
    let in_pool = member(&tree, Some("a"), client(100, 400, 1, 400));
    let alone = member(&tree, None, client(100, 400, 1, 400));
    // 400 are reserved and 200 are left: 150 for the pool, enough for the reservation of its VM.
    let division = divide(Pages(200), Tax::DEFAULT, &tree, &[in_pool, alone]);
    assert_eq!(division.vms, [Pages(150), Pages(50)]);
    let shortfall = Shortfall { pool: PoolId::ROOT, reserved: Pages(400), has: Pages(200) };
    assert_eq!(division.shortfalls, [shortfall]);
}

#[test]
fn a_tax_of_its_own_holds_for_one_vm_alone() {
    let tree = PoolTree::default();
    let idle = client(0, 1000, 1, 0);
    let exempt = Member { tax: Some(Tax::NONE), ..member(&tree, None, idle) };
    let division = divide(Pages(500), Tax::DEFAULT, &tree, &[exempt, member(&tree, None, idle)]);
    assert_eq!(division.vms, [Pages(400), Pages(100)]);
}

#[test]
fn empty_pools_and_an_empty_host_hold_nothing() {
    let tree = PoolTree::new(&[named("a", None, pool(1, 300, None))]).unwrap();
    let division = divide(Pages(200), Tax::DEFAULT, &tree, &[]);
    assert_eq!((division.pools, division.level), (vec![Pages(0), Pages(0)], 0.0));
    assert!(division.shortfalls.is_empty());
}

#[test]
fn the_nearest_cause_is_told() {
    let pools = [
        named("capped", None, pool(1000, 0, Some(300))),
        named("kept", None, pool(1, 200, None)),
        named("inner", Some("capped"), pool(1, 0, None)),
    ];
    let tree = PoolTree::new(&pools).unwrap();
    let [capped, kept] = ["capped", "kept"].map(|name| tree.find(name).unwrap());
    let busy = client(0, 1000, 10, 1000);
    let vms = [
        (Some("inner"), busy, Cause::PoolLimit(capped)),
        (Some("capped"), client(290, 1000, 1, 1000), Cause::Reservation),
        (Some("kept"), busy, Cause::PoolReservation(kept)),
        (None, client(0, 40, 1000, 40), Cause::Limit),
        (None, busy, Cause::Level),
    ];
    let members: Vec<Member> = vms.iter().map(|&(name, client, _)| member(&tree, name, client)).collect();
    let division = divide(Pages(1000), Tax::NONE, &tree, &members);
    assert_eq!(division.causes, vms.map(|(_, _, cause)| cause), "{division:?}");
    assert_eq!(division.levels[0], 46.0);
    let short = divide(Pages(400), Tax::NONE, &tree, &members);
    let places = [capped, capped, PoolId::ROOT, PoolId::ROOT, PoolId::ROOT];
    assert_eq!(short.causes, places.map(Cause::Shortfall), "{short:?}");
}

proptest! {
    #[test]
    fn a_cause_agrees_with_the_numbers(case in any_case(1000, false), available in 0..6000u64, tax in any_tax()) {
        let (tree, division) = (case.tree(), case.divide(available, tax));
        for (i, member) in case.members(&tree).iter().enumerate() {
            let (got, level) = (division.vms[i], division.levels[member.pool.index()]);
            let pays = |pages: Pages| member.pays(tax, pages);
            let above = |id| tree.ancestors(member.pool).any(|pool| pool == id);
            let pool = |id| tree.get(id).unwrap().pool;
            let agrees = match division.causes[i] {
                Cause::Limit => got == member.client.limit,
                Cause::Reservation => got == member.client.reservation && pays(got) > level,
                Cause::PoolLimit(id) => above(id) && Some(division.pools[id.index()]) == pool(id).limit,
                Cause::PoolReservation(id) => above(id) && division.pools[id.index()] == pool(id).reservation,
                Cause::Shortfall(id) => division.shortfalls.iter().any(|s| s.pool == id),
                Cause::Level => true,
            };
            prop_assert!(agrees, "{:?} {:?}", division.causes[i], division);
            // A VM that no bound of its own holds is at the level of its siblings. A VM that its
            // reservation just holds may have got the page that rounding leaves over.
            let at_level = matches!(division.causes[i], Cause::Level | Cause::PoolLimit(_) | Cause::PoolReservation(_));
            if at_level && got > member.client.reservation + Pages(1) {
                let (below, beyond) = (pays(Pages(got.0 - 1)), pays(got + Pages(1)));
                prop_assert!(below <= level * (1.0 + 1e-9) && level <= beyond * (1.0 + 1e-9), "{} {:?}", i, division);
            }
        }
    }

    #[test]
    fn a_tree_with_one_pool_divides_as_no_tree_does(vms in prop::collection::vec(any_client(1000), 1..10), available in 0..8000u64, tax in any_tax()) {
        let flat = entitlements(Pages(available), tax, &vms);
        let tree = PoolTree::new(&[named("a", None, pool(7, 0, None))]).unwrap();
        for name in [None, Some("a")] {
            let members: Vec<Member> = vms.iter().map(|c| member(&tree, name, *c)).collect();
            prop_assert_eq!(&divide(Pages(available), tax, &tree, &members).vms, &flat);
        }
    }

    #[test]
    fn more_shares_never_mean_less_for_a_vm_or_pool(case in any_case(1000, true), available in 0..6000u64, tax in any_tax(), who in any::<prop::sample::Index>(), more in 1..500u64) {
        let before = case.divide(available, tax);
        let mut raised = case.clone();
        let i = who.index(case.vms.len() + case.pools.len());
        let (had, has) = if let Some(pool) = i.checked_sub(case.vms.len()) {
            raised.pools[pool].pool.shares += more;
            let id = case.tree().find(&case.pools[pool].name).unwrap();
            (before.pools[id.index()], raised.divide(available, tax).pools[id.index()])
        } else {
            raised.vms[i].1.shares += more;
            (before.vms[i], raised.divide(available, tax).vms[i])
        };
        // Rounding moves a page at each level of the tree.
        prop_assert!(has.0 + 6 >= had.0, "{:?} -> {:?}", had, has);
    }
}
