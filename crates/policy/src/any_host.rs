//! Hosts that the properties draw: random trees of pools with random VMs.

use plimsoll_units::Pages;
use proptest::prelude::*;

use crate::client::Client;
use crate::division::{Division, divide};
use crate::member::Member;
use crate::pool::{NamedPool, Pool, PoolId, PoolTree};
use crate::tax::Tax;

pub(crate) fn client(reservation: u64, limit: u64, shares: u64, active: u64) -> Client {
    Client { reservation: Pages(reservation), limit: Pages(limit), shares, active: Pages(active) }
}

pub(crate) fn named(name: &str, parent: Option<&str>, pool: Pool) -> NamedPool {
    NamedPool { name: name.to_owned(), parent: parent.map(str::to_owned), pool }
}

pub(crate) fn pool(shares: u64, reservation: u64, limit: Option<u64>) -> Pool {
    Pool { shares, reservation: Pages(reservation), limit: limit.map(Pages), expandable: true }
}

pub(crate) fn member(tree: &PoolTree, name: Option<&str>, client: Client) -> Member {
    Member { client, tax: None, pool: name.map_or(PoolId::ROOT, |n| tree.find(n).unwrap()) }
}

/// A random host. The name of pool `i` is `i`; its parent is an earlier pool or the root.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) pools: Vec<NamedPool>,
    pub(crate) vms: Vec<(Option<String>, Client, Option<Tax>)>,
}

impl Case {
    pub(crate) fn tree(&self) -> PoolTree {
        PoolTree::new(&self.pools).unwrap()
    }

    pub(crate) fn members(&self, tree: &PoolTree) -> Vec<Member> {
        let vm = |(name, client, tax): &(Option<String>, Client, Option<Tax>)| Member {
            tax: *tax,
            ..member(tree, name.as_deref(), *client)
        };
        self.vms.iter().map(vm).collect()
    }

    pub(crate) fn divide(&self, available: u64, tax: Tax) -> Division {
        let tree = self.tree();
        divide(Pages(available), tax, &tree, &self.members(&tree))
    }
}

pub(crate) fn any_client(most: u64) -> impl Strategy<Value = Client> {
    (0..=most, 0..=most, 1..500u64, 0..=most, any::<bool>()).prop_map(|(a, b, shares, active, reserves)| {
        client(if reserves { a.min(b) / 4 } else { 0 }, a.max(b), shares, active)
    })
}

pub(crate) fn any_tax() -> impl Strategy<Value = Tax> {
    (0.0..0.95f64).prop_map(|rate| Tax::new(rate).unwrap())
}

/// Hosts whose VMs have up to `most` pages, with expandable pools only if `only_expandable`.
pub(crate) fn any_case(most: u64, only_expandable: bool) -> impl Strategy<Value = Case> {
    let pool =
        (any::<prop::sample::Index>(), 1..500u64, 0..=most, prop::option::of(0..=most * 3), any::<bool>());
    let vm = (any::<prop::sample::Index>(), any_client(most), prop::option::of(any_tax()));
    (prop::collection::vec(pool, 0..6), prop::collection::vec(vm, 1..10)).prop_map(move |(pools, vms)| {
        // The choice beyond the last pool is the root.
        let place = |index: prop::sample::Index, count: usize| {
            index.index(count + 1).checked_sub(1).map(|i| i.to_string())
        };
        let count = pools.len();
        let pools =
            pools.into_iter().enumerate().map(|(i, (index, shares, reservation, limit, expandable))| {
                let reservation = Pages(limit.map_or(reservation, |limit| reservation.min(limit)));
                let expandable = expandable || only_expandable;
                let pool = Pool { shares, reservation, limit: limit.map(Pages), expandable };
                NamedPool { name: i.to_string(), parent: place(index, i), pool }
            });
        let vms = vms.into_iter().map(|(index, client, tax)| (place(index, count), client, tax));
        Case { pools: pools.collect(), vms: vms.collect() }
    })
}
