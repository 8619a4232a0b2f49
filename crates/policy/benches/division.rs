//! Measures a full recomputation of the targets of all VMs of a host on one core. Prints a line
//! with a JSON object for each number of VMs.
//!
//! `cargo bench -p plimsoll-policy` runs it; `cargo xtask bench policy` runs it and judges the
//! figures.

#![expect(clippy::print_stdout, reason = "it is a program that prints")]
#![expect(clippy::expect_used, reason = "a measurement that cannot be set up ends")]

use std::hint::black_box;
use std::time::Duration;

use plimsoll_policy::{
    Client, Driver, Host, Inflation, Member, NamedPool, Pool, PoolTree, Rules, State, Tax, Thresholds, Vm,
    decide, divide, entitlements,
};
use plimsoll_units::{Bytes, Pages};
use rustix::time::{ClockId, clock_gettime};

/// VMs in each innermost pool. Those pools are the third level below the root.
const VMS_PER_TEAM: usize = 25;
/// Pools right below the root.
const DIVISIONS: usize = 8;
/// Pools between those and the innermost.
const DEPARTMENTS: usize = 32;
/// Enough for a steady median; a few seconds for the largest host.
const RUNS: usize = 31;

fn main() {
    for count in [10, 100, 1_000, 10_000, 100_000] {
        let (tree, members) = host(count);
        // Two thirds of the sum of all limits: the level lies among bends of every kind.
        let sizes: u64 = members.iter().map(|m| m.client.limit.0).sum();
        let available = Pages(sizes * 2 / 3);
        let clients: Vec<Client> = members.iter().map(|m| m.client).collect();
        let (host, vms) = pressed(available, &members);
        let all = measure(|| drop(black_box(decide(&Rules::default(), &host, &tree, black_box(&vms)))));
        let whole = measure(|| drop(black_box(divide(available, Tax::DEFAULT, &tree, black_box(&members)))));
        let flat = measure(|| drop(black_box(entitlements(available, Tax::DEFAULT, black_box(&clients)))));
        let division = divide(available, Tax::DEFAULT, &tree, &members);
        println!(
            "{{\"vms\":{count},\"pools\":{},\"us\":{:.1},\"median_us\":{:.1},\"divide_us\":{:.1},\"flat_us\":{:.1}}}",
            division.pools.len() - 1,
            all.best,
            all.median,
            whole.best,
            flat.best
        );
    }
}

/// The processor time of runs, in microseconds.
struct Times {
    /// The fastest run: other work of the machine only adds to it, through its caches.
    best: f64,
    median: f64,
}

fn measure(run: impl Fn()) -> Times {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = micros();
            run();
            micros() - start
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    Times { best: times[0], median: times[RUNS / 2] }
}

/// The processor time of this thread: unlike the time of day it stands still while other threads
/// have the core.
#[expect(clippy::cast_precision_loss, reason = "a measurement of seconds")]
fn micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// A host of `count` VMs of 1 to 16 GiB in three levels of pools, some with reservations and
/// limits.
fn host(count: usize) -> (PoolTree, Vec<Member>) {
    let mut random = Random(count as u64);
    let teams = count.div_ceil(VMS_PER_TEAM);
    let departments = DEPARTMENTS.min(teams);
    let divisions = DIVISIONS.min(departments);
    let mut pools = Vec::new();
    let mut level = |letter: char, count: usize, above: Option<(char, usize)>| {
        for i in 0..count {
            let limit = random.below(8) == 0;
            let pool = Pool {
                shares: 1000 * (1 + random.below(8)),
                reservation: Pages(random.below(4) << 18),
                limit: limit.then_some(Pages(1 << 28)),
                expandable: true,
            };
            let parent = above.map(|(letter, count)| format!("{letter}{}", i % count));
            pools.push(NamedPool { name: format!("{letter}{i}"), parent, pool });
        }
    };
    level('a', divisions, None);
    level('b', departments, Some(('a', divisions)));
    level('c', teams, Some(('b', departments)));
    let tree = PoolTree::new(&pools).expect("each pool's parent comes before it");
    let members = (0..count)
        .map(|i| {
            let size = (1 + random.below(16)) << 18;
            let client = Client {
                reservation: Pages(if random.below(4) == 0 { size / 4 } else { 0 }),
                limit: Pages(if random.below(8) == 0 { size / 2 } else { size }),
                shares: (size >> 8) * 10 * (1 + random.below(4)),
                active: Pages(random.below(size)),
            };
            let pool = tree.find(&format!("c{}", i % teams)).expect("all teams were made");
            Member { client, tax: None, pool }
        })
        .collect();
    (tree, members)
}

/// The same host, short of memory: its VMs together hold all available memory, so that every
/// decision about them has to be made.
fn pressed(available: Pages, members: &[Member]) -> (Host, Vec<Vm>) {
    let thresholds = Thresholds::sliding(available.bytes());
    let host = Host {
        for_guests: available.saturating_add(thresholds.clear),
        free: thresholds.hard,
        withheld: Pages::ZERO,
        thresholds,
        state: State::Soft,
        strained: false,
        elapsed: Duration::from_secs(1),
    };
    let drivers = [Driver::Follows, Driver::Follows, Driver::Follows, Driver::Stuck, Driver::Absent];
    let vm = |(member, driver): (&Member, Driver)| Vm {
        member: *member,
        size: member.client.limit,
        held: Pages(member.client.limit.0 * 2 / 3),
        wanted: Pages(member.client.active.0 % 64),
        target: Pages(member.client.limit.0 * 3 / 4),
        spare: None,
        hollow: Pages::ZERO,
        inflation: Inflation::default(),
        lacks: Pages::ZERO,
        balloon: Pages::floor(Bytes::mib(64)),
        ballooned: Pages::floor(Bytes::mib(64)),
        driver,
        pageable: plimsoll_policy::Pageable::default(),
        waited: false,
    };
    (host, members.iter().zip(drivers.into_iter().cycle()).map(vm).collect())
}

/// A generator of 64-bit numbers, the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
