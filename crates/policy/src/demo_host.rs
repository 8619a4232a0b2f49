//! The demo's host and its VMs, for tests.

use std::time::Duration;

use plimsoll_units::{Bytes, Pages};

use crate::client::Client;
use crate::decision::{Decision, Outcome};
use crate::host::Host;
use crate::inflation::Inflation;
use crate::member::Member;
use crate::pool::{NamedPool, Pool, PoolId, PoolTree};
use crate::rules::Rules;
use crate::state::{State, Thresholds};
use crate::target;
use crate::vm::{Driver, Pageable, Vm};

pub(crate) fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

pub(crate) fn vm(held: u64, active: u64, wanted: u64) -> Vm {
    let client = Client { reservation: mib(64), limit: mib(256), shares: 1, active: mib(active) };
    Vm {
        member: Member { client, tax: None, pool: PoolId::ROOT },
        size: mib(256),
        held: mib(held),
        wanted: mib(wanted),
        target: mib(256),
        balloon: Pages(0),
        ballooned: Pages::ZERO,
        driver: Driver::Follows,
        spare: None,
        hollow: Pages::ZERO,
        inflation: Inflation::default(),
        lacks: Pages::ZERO,
        pageable: Pageable { store: Pages(mib(256).0 / 10), swap: mib(256) },
        waited: false,
    }
}

/// The demo's host: four VMs of 256 MiB in 640 MiB.
pub(crate) fn host(free: u64, state: State) -> Host {
    Host {
        for_guests: mib(598),
        free: mib(free),
        withheld: Pages::ZERO,
        thresholds: Thresholds::of_min_free(Bytes::mib(38)),
        state,
        strained: false,
        elapsed: Duration::from_secs(60),
    }
}

/// Decides by the default rules, without pools.
pub(crate) fn decide(host: &Host, vms: &[Vm]) -> Vec<Decision> {
    target::decide(&Rules::default(), host, &PoolTree::default(), vms).vms
}

/// Decides by the default rules, with `pools`.
pub(crate) fn decide_in(pools: &PoolTree, host: &Host, vms: &[Vm]) -> Outcome {
    target::decide(&Rules::default(), host, pools, vms)
}

pub(crate) fn weighing(shares: u64, mut vm: Vm) -> Vm {
    vm.member.client.shares = shares;
    vm
}

pub(crate) fn pool(name: &str, limit: Option<u64>) -> NamedPool {
    let pool = Pool { shares: 1, reservation: Pages(0), limit: limit.map(mib), expandable: true };
    NamedPool { name: name.to_owned(), parent: None, pool }
}
