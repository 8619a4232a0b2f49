//! How many more VMs of a kind a host can take, and at which risk.

use std::time::Duration;

use plimsoll_policy::{
    Claim, Client, Member, PoolId, PoolTree, Reservations, Rules, State, Tax, Thresholds, divide,
};
use plimsoll_units::{Bytes, Pages};

use crate::random::Random;
use crate::scenario::Scenario;

/// Moments that are tried: a risk of one in a hundred is met twenty times, and so known within some
/// tenths of a percent.
const MOMENTS: u32 = 2000;

/// Levels of active memory that a curve is looked at for.
const LOOKS: u32 = 200;

/// A host and the VMs that run on it.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// Machine memory for VMs and their overhead.
    pub memory: Pages,
    /// Swap space that admission counts on.
    pub swap: Option<Pages>,
    /// VMs have swap space: paging is possible.
    pub pages: bool,
    /// Its thresholds.
    pub thresholds: Thresholds,
    /// Its tax on idle memory.
    pub tax: Tax,
    /// Its pools.
    pub pools: PoolTree,
    /// The VMs that run.
    pub vms: Vec<Tenant>,
}

/// A VM, as far as others must know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its pool.
    pub pool: PoolId,
    /// Guest-physical memory.
    pub size: Pages,
    /// Machine memory that it always has.
    pub reservation: Pages,
    /// Machine memory that it never exceeds.
    pub limit: Pages,
    /// Its weight.
    pub shares: u64,
    /// A tax of its own.
    pub tax: Option<Tax>,
    /// Machine memory beside its guest's.
    pub overhead: Pages,
    /// Amounts of memory that it may be found using, each as likely as another. Never empty.
    pub levels: Vec<Pages>,
}

/// The host with a number of VMs more.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// How many more.
    pub more: usize,
    /// Why admission refuses the last of them; `None`: it does not.
    pub refusal: Option<String>,
    /// How far reclaiming has to go for all to have what they use on average.
    pub state: State,
    /// What each of them is entitled to when all use what they do on average; of none what one more
    /// would be.
    pub entitlement: Pages,
    /// What is lacking if all VMs use the most that they ever do at once.
    pub short_at_peak: Pages,
    /// The chance that at a moment of no one's choice not all that VMs use fits, from 0 to 1.
    pub risk: f64,
}

impl Occupied {
    /// The host of a scenario when most of its VMs run.
    pub fn of_scenario(scenario: &Scenario) -> Self {
        let host = &scenario.host;
        let runs = |vm: &crate::VmSpec, at: Duration| {
            vm.start <= at && vm.life.is_none_or(|life| at < vm.start + life)
        };
        let count = |at: Duration| scenario.vms.iter().filter(|vm| runs(vm, at)).count();
        let busiest = scenario.vms.iter().map(|vm| vm.start).max_by_key(|at| count(*at)).unwrap_or_default();
        let tenant = |vm: &crate::VmSpec| {
            let span = vm.life.unwrap_or(scenario.duration);
            let levels = (0..LOOKS).map(|i| {
                let want = vm.guest.demand.curve.at(span * i / LOOKS);
                Pages::ceil(want.active).min(vm.limit)
            });
            Tenant {
                pool: vm.pool.as_ref().and_then(|p| scenario.pools.find(p)).unwrap_or(PoolId::ROOT),
                size: vm.size,
                reservation: vm.reservation,
                limit: vm.limit,
                shares: vm.shares,
                tax: vm.tax,
                overhead: vm.overhead,
                levels: levels.collect(),
            }
        };
        Self {
            memory: Pages::floor(host.memory),
            swap: Some(Pages::floor(host.swap)).filter(|swap| *swap > Pages::ZERO),
            pages: host.swap > Bytes::ZERO,
            thresholds: host.thresholds.of(host.memory),
            tax: host.tax,
            pools: scenario.pools.clone(),
            vms: scenario.vms.iter().filter(|vm| runs(vm, busiest)).map(tenant).collect(),
        }
    }

    /// The host with 0 to `most` more of `kind`, one after the other; it ends with the first that
    /// admission refuses.
    pub fn fit(&self, kind: &Tenant, most: usize, seed: u64) -> Vec<Fit> {
        let mut moments = Moments::new(&self.vms, seed);
        let mut host = self.clone();
        let mut fits = vec![host.judge(kind, 0, None, &moments)];
        for more in 1..=most {
            let refusal = host.refuses(kind);
            let refused = refusal.is_some();
            host.vms.push(kind.clone());
            moments.add(kind);
            fits.push(host.judge(kind, more, refusal, &moments));
            if refused {
                break;
            }
        }
        fits
    }

    fn refuses(&self, kind: &Tenant) -> Option<String> {
        let claim = |vm: &Tenant| Claim {
            pool: vm.pool,
            size: vm.size,
            reservation: vm.reservation,
            overhead: vm.overhead,
        };
        let vms: Vec<Claim> = self.vms.iter().map(claim).collect();
        let mut more = vms.clone();
        more.push(claim(kind));
        let before = Reservations { machine: self.memory, swap: self.swap, pools: &self.pools, vms: &vms };
        before.admits(&Reservations { vms: &more, ..before }).err().map(|e| e.to_string())
    }

    fn judge(&self, kind: &Tenant, more: usize, refusal: Option<String>, moments: &Moments) -> Fit {
        let for_guests = self.memory.saturating_sub(self.sum(|vm| vm.overhead));
        let available = for_guests.saturating_sub(self.thresholds.clear);
        Fit {
            more,
            refusal,
            state: self.state(available),
            entitlement: self.entitlement(kind, more, available),
            short_at_peak: self.sum(Tenant::peak).saturating_sub(available),
            risk: moments.risk(available),
        }
    }

    fn sum(&self, part: impl Fn(&Tenant) -> Pages) -> Pages {
        self.vms.iter().map(part).fold(Pages::ZERO, Pages::saturating_add)
    }

    /// Returns the state in which all VMs have what they use on average. High: all may fill their
    /// memory. Soft: balloons as large as they may be suffice. Hard: paging beyond them does, which
    /// takes swap space. Low: nothing does, and VMs wait.
    fn state(&self, available: Pages) -> State {
        let balloons_leave = |vm: &Tenant| {
            let largest = Pages(vm.size.0 / 100 * u64::from(Rules::LARGEST_BALLOON));
            vm.mean().max(vm.size.saturating_sub(largest)).min(vm.limit)
        };
        if self.sum(|vm| vm.limit) <= available {
            State::High
        } else if self.sum(balloons_leave) <= available {
            State::Soft
        } else if self.pages && self.sum(Tenant::mean) <= available {
            State::Hard
        } else {
            State::Low
        }
    }

    /// The entitlement of the last VM of `kind`; without any, what a first one would get.
    fn entitlement(&self, kind: &Tenant, more: usize, available: Pages) -> Pages {
        let mut members: Vec<Member> = self.vms.iter().map(Tenant::member).collect();
        if more == 0 {
            members.push(kind.member());
        }
        let division = divide(available, self.tax, &self.pools, &members);
        division.vms.last().copied().unwrap_or_default()
    }
}

impl Tenant {
    /// The mean of its levels.
    pub fn mean(&self) -> Pages {
        let sum: u128 = self.levels.iter().map(|l| u128::from(l.0)).sum();
        let count = u128::try_from(self.levels.len()).unwrap_or(u128::MAX).max(1);
        Pages(u64::try_from(sum / count).unwrap_or(u64::MAX))
    }

    /// The middle one of its levels: what it usually uses.
    pub fn median(&self) -> Pages {
        let mut levels = self.levels.clone();
        levels.sort_unstable();
        levels.get(levels.len() / 2).copied().unwrap_or_default()
    }

    /// The highest of its levels.
    pub fn peak(&self) -> Pages {
        self.levels.iter().copied().max().unwrap_or_default()
    }

    fn member(&self) -> Member {
        let client = Client {
            reservation: self.reservation,
            limit: self.limit,
            shares: self.shares,
            active: self.mean(),
        };
        Member { client, tax: self.tax, pool: self.pool }
    }

    fn at_random(&self, random: &mut Random) -> Pages {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the length"
        )]
        let i = (random.unit() * self.levels.len() as f64) as usize;
        self.levels.get(i).copied().unwrap_or_default()
    }
}

/// What all VMs use together at moments of no one's choice, each VM independent of the others. With
/// one more VM every moment has more, so that risk only grows.
struct Moments {
    used: Vec<Pages>,
    random: Vec<Random>,
}

impl Moments {
    fn new(vms: &[Tenant], seed: u64) -> Self {
        let random = (0..MOMENTS).map(|i| Random::new(seed, u64::from(i)));
        let mut moments = Self { used: vec![Pages::ZERO; MOMENTS as usize], random: random.collect() };
        for vm in vms {
            moments.add(vm);
        }
        moments
    }

    fn add(&mut self, vm: &Tenant) {
        for (used, random) in self.used.iter_mut().zip(&mut self.random) {
            *used = used.saturating_add(vm.at_random(random));
        }
    }

    fn risk(&self, available: Pages) -> f64 {
        let short = self.used.iter().filter(|used| **used > available).count();
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let risk = short as f64 / self.used.len() as f64;
        risk
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mib(n: u64) -> Pages {
        Pages::floor(Bytes::mib(n))
    }

    fn tenant(size: u64, reservation: u64, levels: &[u64]) -> Tenant {
        Tenant {
            pool: PoolId::ROOT,
            size: mib(size),
            reservation: mib(reservation),
            limit: mib(size),
            shares: size * 10,
            tax: None,
            overhead: mib(10),
            levels: levels.iter().map(|l| mib(*l)).collect(),
        }
    }

    fn host(memory: u64, swap: Option<u64>, vms: Vec<Tenant>) -> Occupied {
        let memory = mib(memory);
        Occupied {
            memory,
            swap: swap.map(mib),
            pages: swap.is_some(),
            thresholds: Thresholds::of_min_free(Bytes::mib(50)),
            tax: Tax::DEFAULT,
            pools: PoolTree::default(),
            vms,
        }
    }

    #[test]
    fn every_state_is_expected_in_its_turn_and_the_refusal_ends_the_list() {
        let fits = host(1045, Some(9000), vec![]).fit(&tenant(256, 80, &[80]), 99, 1);
        let states: Vec<State> = fits.iter().map(|f| f.state).collect();
        assert_eq!(states[..4], [State::High; 4]);
        assert_eq!(states[4..10], [State::Soft; 6]);
        assert_eq!(states[10], State::Hard);
        let without = host(1045, None, vec![]).fit(&tenant(256, 80, &[80]), 10, 1);
        assert_eq!(without[10].state, State::Low, "without swap space nothing is paged out");
        // Twelve of 90 MiB do not fit into 1045.
        assert_eq!(fits.len(), 13);
        assert!(fits[11].refusal.is_none());
        assert!(fits[12].refusal.as_ref().is_some_and(|r| r.contains("the budget")), "{:?}", fits[12]);
    }

    #[test]
    fn a_risk_is_the_chance_that_peaks_meet() {
        // Three VMs, of which each is at its peak a tenth of the time: only all three at once do
        // not fit.
        let levels = [10, 10, 10, 10, 10, 10, 10, 10, 10, 300];
        let fits = host(850, None, vec![]).fit(&tenant(400, 0, &levels), 3, 1);
        assert_eq!((fits[2].risk, fits[3].short_at_peak), (0.0, mib(900 - 850 + 30 + 50)));
        assert!((0.0002..0.004).contains(&fits[3].risk), "{}", fits[3].risk);
    }

    proptest! {
        #[test]
        fn more_vms_never_make_anything_better(
            memory in 200..4000u64, swap in prop::option::of(0..9000u64), others in prop::collection::vec((32..900u64, 0..100u64, 0..900u64), 0..5),
            size in 32..600u64, reservation in 0..200u64, levels in prop::collection::vec(0..600u64, 1..8),
        ) {
            let others = others.into_iter().map(|(size, r, level)| tenant(size, r.min(size), &[level.min(size)]));
            let host = host(memory, swap, others.collect());
            let levels: Vec<u64> = levels.into_iter().map(|l| l.min(size)).collect();
            let fits = host.fit(&tenant(size, reservation.min(size), &levels), 20, 3);
            for pair in fits.windows(2) {
                prop_assert!(pair[0].refusal.is_none());
                prop_assert!(pair[0].state <= pair[1].state && pair[0].risk <= pair[1].risk);
                prop_assert!(pair[0].short_at_peak <= pair[1].short_at_peak);
                // Of none and of the first, it is the same VM that is looked at.
                prop_assert!(pair[0].more == 0 || pair[1].entitlement.0 <= pair[0].entitlement.0 + 1, "{:?}", pair);
            }
        }
    }
}
