use plimsoll_units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::pool::NamedPool;

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

fn pool(name: &str, parent: Option<&str>, reservation: u64, expandable: bool) -> NamedPool {
    let pool = Pool { shares: 1000, reservation: mib(reservation), limit: None, expandable };
    NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
}

fn claim(tree: &PoolTree, pool: Option<&str>, size: u64, reservation: u64) -> Claim {
    let pool = pool.map_or(PoolId::ROOT, |name| tree.find(name).unwrap());
    Claim { pool, size: mib(size), reservation: mib(reservation), overhead: mib(10) }
}

fn host<'a>(pools: &'a PoolTree, vms: &'a [Claim]) -> Reservations<'a> {
    Reservations { machine: mib(1000), swap: None, pools, vms }
}

fn refusal(before: &Reservations<'_>, after: &Reservations<'_>) -> String {
    before.admits(after).unwrap_err().to_string()
}

#[test]
fn a_vm_is_refused_with_the_numbers_of_what_is_short() {
    let tree = PoolTree::default();
    let vms = [claim(&tree, None, 900, 600), claim(&tree, None, 900, 380)];
    assert_eq!(host(&tree, &vms[..1]).unreserved(PoolId::ROOT), mib(390));
    host(&tree, &vms[..1]).admits(&host(&tree, &vms)).unwrap();
    let more = [vms[0], claim(&tree, None, 900, 381)];
    assert_eq!(
        refusal(&host(&tree, &vms[..1]), &host(&tree, &more)),
        "it needs 391MiB more machine memory (reservations and overhead), and 390MiB of 1000MiB, the budget, is unreserved: \
         lower a reservation, stop a VM or raise the budget"
    );
}

#[test]
fn a_reservation_beyond_the_pools_expands_to_the_parent_and_on_to_the_host() {
    let tree = PoolTree::new(&[pool("a", None, 300, true), pool("b", Some("a"), 100, true)]).unwrap();
    let id = tree.find("b").unwrap();
    // 100 of b's own, the other 200 of a's, and 700 unreserved.
    assert_eq!(host(&tree, &[]).unreserved(id), mib(1000));
    let fits = [claim(&tree, Some("b"), 2000, 990)];
    host(&tree, &[]).admits(&host(&tree, &fits)).unwrap();
    assert_eq!(host(&tree, &fits).unreserved(id), mib(0));
    let beside = [fits[0], claim(&tree, None, 100, 0)];
    assert!(
        refusal(&host(&tree, &fits), &host(&tree, &beside)).starts_with("it needs 10MiB more machine memory")
    );
}

#[test]
fn a_pool_that_is_not_expandable_promises_what_it_has_and_is_named() {
    let tree = PoolTree::new(&[pool("a", None, 300, false), pool("b", Some("a"), 100, true)]).unwrap();
    let id = tree.find("b").unwrap();
    assert_eq!(host(&tree, &[]).unreserved(id), mib(300));
    let fits = [claim(&tree, Some("b"), 500, 200)];
    host(&tree, &[]).admits(&host(&tree, &fits)).unwrap();
    let over = [fits[0], claim(&tree, Some("a"), 500, 101)];
    assert_eq!(
        refusal(&host(&tree, &fits), &host(&tree, &over)),
        "it needs 101MiB more memory reserved from pool \"a\", and 100MiB of 300MiB, its reservation, which is not expandable, \
         is unreserved: lower the reservation, raise the pool's or make the pool expandable"
    );
}

#[test]
fn a_pools_limit_bounds_what_it_can_promise() {
    let mut limited = pool("a", None, 0, true);
    limited.pool.limit = Some(mib(200));
    let tree = PoolTree::new(&[limited]).unwrap();
    assert_eq!(host(&tree, &[]).unreserved(tree.find("a").unwrap()), mib(200));
    let over = [claim(&tree, Some("a"), 500, 201)];
    assert!(
        refusal(&host(&tree, &[]), &host(&tree, &over))
            .contains("200MiB of 200MiB, its limit, is unreserved")
    );
    // Its promises beyond the limit, from before it got one, are not backed.
    assert_eq!(host(&tree, &over).unreserved(PoolId::ROOT), mib(1000 - 200 - 10));
}

#[test]
fn creating_a_pool_raising_its_reservation_and_moving_a_vm_are_checked_too() {
    let none = PoolTree::default();
    let vms = [claim(&none, None, 900, 600)];
    let small = PoolTree::new(&[pool("a", None, 390, false)]).unwrap();
    host(&none, &vms).admits(&host(&small, &vms)).unwrap();
    let large = PoolTree::new(&[pool("a", None, 391, false)]).unwrap();
    assert!(refusal(&host(&none, &vms), &host(&large, &vms)).contains("390MiB of 1000MiB"));
    assert!(
        refusal(&host(&small, &vms), &host(&large, &vms)).starts_with("it needs 1MiB more machine memory")
    );
    let moved = [Claim { pool: small.find("a").unwrap(), ..vms[0] }];
    assert!(refusal(&host(&small, &vms), &host(&small, &moved)).contains("pool \"a\""));
    // The reservation of a pool cannot fall below those that it backs.
    let roomy = PoolTree::new(&[pool("a", None, 700, false)]).unwrap();
    host(&none, &vms).admits(&host(&roomy, &moved)).unwrap();
    assert_eq!(
        refusal(&host(&roomy, &moved), &host(&small, &moved)),
        "600MiB of memory reserved from pool \"a\" is promised already, more than 390MiB, its reservation, which is not \
         expandable: lower the reservation, raise the pool's or make the pool expandable"
    );
}

#[test]
fn swap_space_is_asked_for_where_there_is_some() {
    let tree = PoolTree::default();
    let vms = [claim(&tree, None, 400, 100), claim(&tree, None, 400, 100)];
    let with = |swap, vms| Reservations { swap, ..host(&tree, vms) };
    with(None, &vms[..1]).admits(&with(None, &vms)).unwrap();
    with(Some(mib(600)), &vms[..1]).admits(&with(Some(mib(600)), &vms)).unwrap();
    assert_eq!(
        refusal(&with(Some(mib(599)), &vms[..1]), &with(Some(mib(599)), &vms)),
        "it needs 300MiB more swap space (size - reservation), and 299MiB of 599MiB, the swap space, is unreserved: \
         raise the reservation, lower the size, stop a VM or add swap space"
    );
}

#[test]
fn a_host_that_lost_memory_can_be_relieved_but_not_burdened() {
    let tree = PoolTree::default();
    let vms = [claim(&tree, None, 900, 600), claim(&tree, None, 900, 600)];
    let lighter = [vms[0], Claim { reservation: mib(500), ..vms[1] }];
    host(&tree, &vms).admits(&host(&tree, &lighter)).unwrap();
    host(&tree, &vms).admits(&host(&tree, &vms)).unwrap();
    assert!(host(&tree, &lighter).admits(&host(&tree, &vms)).is_err());
}

proptest! {
    #[test]
    fn what_is_unreserved_is_exactly_what_is_admitted(
        pools in prop::collection::vec((any::<prop::sample::Index>(), 0..300u64, prop::option::of(0..400u64), any::<bool>()), 0..5),
        vms in prop::collection::vec((any::<prop::sample::Index>(), 0..200u64), 0..6), who in any::<prop::sample::Index>(),
    ) {
        let name = |i: usize| format!("p{i}");
        let named: Vec<NamedPool> = pools.iter().enumerate().map(|(i, (parent, reservation, limit, expandable))| {
            let parent = parent.index(i + 1).checked_sub(1).map(name);
            let reservation = limit.map_or(*reservation, |limit| limit.min(*reservation));
            let mut pool = pool(&name(i), parent.as_deref(), reservation, *expandable);
            pool.pool.limit = limit.map(mib);
            pool
        }).collect();
        let tree = PoolTree::new(&named).unwrap();
        let place = |index: &prop::sample::Index| index.index(named.len() + 1).checked_sub(1).map(name);
        let mut claims: Vec<Claim> = Vec::new();
        for (pool, reservation) in &vms {
            let mut more = claims.clone();
            more.push(claim(&tree, place(pool).as_deref(), 1000, *reservation));
            if host(&tree, &claims).admits(&host(&tree, &more)).is_ok() {
                claims = more;
            }
        }
        // Pools whose own reservations do not fit leave the host short from the start.
        prop_assume!(host(&tree, &claims).most_short(PoolId::ROOT, host(&tree, &claims).promises()[0]) == Pages::ZERO);
        let pool = place(&who);
        let id = pool.as_deref().map_or(PoolId::ROOT, |name| tree.find(name).unwrap());
        let unreserved = host(&tree, &claims).unreserved(id);
        let with = |reservation| {
            let mut more = claims.clone();
            more.push(Claim { reservation, overhead: Pages(0), ..claim(&tree, pool.as_deref(), 5000, 0) });
            more
        };
        prop_assert!(host(&tree, &claims).admits(&host(&tree, &with(unreserved))).is_ok());
        prop_assert!(host(&tree, &claims).admits(&host(&tree, &with(unreserved + Pages(1)))).is_err());
    }
}
