use std::time::Duration;

use plimsoll_policy::{Client, Driver, Inflation, Member, Need, Party, PoolId, Reclaim, Signs, Spare, Stage};
use plimsoll_units::Pages;

use crate::course::VmFrame;
use crate::guest::Guest;
use crate::random::Random;
use crate::sampler::{Sampler, ratio};
use crate::scenario::{HostSpec, VmSpec};
use crate::sharing::Scan;

/// A VM that runs.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) guest: Guest,
    pub(crate) sampler: Sampler,
    need: Need,
    spare: Spare,
    inflation: Inflation,
    pub(crate) scan: Scan,
    /// Since the scenario began.
    pub(crate) since: Duration,
    /// What its faults wait for.
    pub(crate) wanted: Pages,
    /// What it would have touched in this step and did not get.
    pub(crate) missing: Pages,
    /// The part of the last ten seconds in which it was stalled, by what it lacked.
    stall: f64,
    /// What it was granted in this step.
    pub(crate) given: Pages,
    /// Pages of its own that it replaced in this step to serve its faults.
    pub(crate) replaced: Pages,
    /// How long it has stood still, since it began to or last got leeway.
    pub(crate) waiting: Duration,
    /// See [`Party::leeway`].
    pub(crate) leeway: Pages,
    /// Its part of the shared frames.
    pub(crate) frames: Pages,
    pub(crate) entitlement: Pages,
    /// What it may have beyond its entitlement: see [`plimsoll_policy::Decision::lent`].
    pub(crate) lent: Pages,
    /// What its shares are worth: see [`plimsoll_policy::Decision::worth`].
    pub(crate) worth: Pages,
    pub(crate) target: Pages,
    pub(crate) most: Pages,
    /// The balloon that it was told.
    pub(crate) balloon: Pages,
    pub(crate) reclaim: Reclaim,
    /// What it may hold, what it waits for included, before it pages.
    pub(crate) level: Pages,
    /// It has waited in vain for a whole period, and there is still nothing for it.
    pub(crate) waited: bool,
}

impl Run {
    /// It powers on at `since`. `stream` tells its random numbers from others'.
    pub(crate) fn new(spec: &VmSpec, host: &HostSpec, seed: u64, stream: u64, since: Duration) -> Self {
        let random =
            |use_: u64| Random::new(seed, stream.wrapping_mul(4).wrapping_add(use_).wrapping_add(1 << 32));
        Self {
            guest: Guest::new(spec.size, &spec.guest, random(0)),
            sampler: Sampler::new(random(1), host.sample_period, host.sample_pages),
            need: Need::new(host.sample_period),
            spare: Spare::default(),
            inflation: Inflation::default(),
            scan: Scan::new(random(2)),
            since,
            wanted: Pages::ZERO,
            missing: Pages::ZERO,
            stall: 0.0,
            given: Pages::ZERO,
            replaced: Pages::ZERO,
            waiting: Duration::ZERO,
            leeway: Pages::ZERO,
            frames: Pages::ZERO,
            entitlement: spec.reservation,
            lent: Pages::ZERO,
            worth: Pages::ZERO,
            target: spec.limit,
            most: spec.limit,
            balloon: Pages::ZERO,
            reclaim: Reclaim::default(),
            level: spec.limit,
            waited: false,
        }
    }

    /// What the ledger charges it: its own pages and its part of the shared frames.
    pub(crate) fn charged(&self) -> Pages {
        self.guest.memory.held() + self.frames
    }

    /// What it is entitled to, and what it is lent.
    fn claim(&self) -> Pages {
        self.entitlement + self.lent
    }

    /// Pages that its guest may use and that are not charged to it: shared ones beyond its part of
    /// the frames, and swapped ones.
    fn free_of_charge(&self) -> Pages {
        let memory = &self.guest.memory;
        (memory.allocated() + memory.on_swap()).saturating_sub(self.charged())
    }

    pub(crate) fn driver(&self, spec: &VmSpec, now: Duration) -> Driver {
        let up = now.saturating_sub(self.since);
        match spec.guest.balloon_after {
            Some(after) if up >= after => Driver::Follows,
            _ => Driver::Absent,
        }
    }

    /// Whether its balloon has still to grow.
    fn inflates(&self, spec: &VmSpec, now: Duration) -> bool {
        self.driver(spec, now) == Driver::Follows && self.guest.memory.ballooned < self.balloon
    }

    /// What policy takes it to use.
    pub(crate) fn active(&self) -> Pages {
        self.need.active(self.sampler.estimate(&self.guest.memory).active())
    }

    /// Takes what `elapsed` has shown of what it needs, and of what its guest can spare.
    pub(crate) fn observe(&mut self, spec: &VmSpec, now: Duration, elapsed: Duration) {
        self.spare.observe(elapsed, self.guest.account(&spec.guest).as_ref(), false);
        self.inflation.observe(elapsed, spec.size, self.balloon, self.guest.memory.ballooned);
        let lacked = self.missing + self.given + self.replaced;
        let stalled = if lacked > Pages::ZERO { ratio(self.missing, lacked) } else { 0.0 };
        self.stall += (stalled - self.stall) * (1.0 - (-elapsed.as_secs_f64() / 10.0).exp());
        let signs = Signs {
            estimate: self.sampler.estimate(&self.guest.memory).active(),
            used: self.spare.used(spec.size),
            committed: self.spare.committed(spec.size),
            held: self.charged(),
            most: spec.limit,
            waits: self.wanted,
            given: self.given,
            replaced: self.replaced,
            stall: [self.stall, stalled],
            inflates: self.inflates(spec, now),
            executed: elapsed,
            starved: self.spare.is_short(),
        };
        self.need.observe(elapsed, &signs);
    }

    /// It as policy sees it. `swap` pages of it can still be swapped out.
    pub(crate) fn party(
        &self,
        spec: &VmSpec,
        pool: PoolId,
        now: Duration,
        swap: Pages,
    ) -> plimsoll_policy::Vm {
        let client = Client {
            reservation: spec.reservation,
            limit: spec.limit,
            shares: spec.shares,
            active: self.active(),
        };
        let held = self.charged();
        let hollow = self.spare.hollow(spec.size, held, self.guest.memory.ballooned);
        plimsoll_policy::Vm {
            member: Member { client, tax: spec.tax, pool },
            // What its guest has without machine memory of its own need not be in its balloon for
            // it to come to its target.
            size: spec.size.saturating_sub(self.free_of_charge()),
            held,
            wanted: self.wanted.min(spec.limit.saturating_sub(held)),
            target: self.target,
            balloon: self.balloon,
            ballooned: self.guest.memory.ballooned,
            driver: self.driver(spec, now),
            lacks: self.need.missing(),
            spare: self.spare.balloon(),
            hollow,
            inflation: self.inflation,
            // No store: what is paged is swapped.
            pageable: plimsoll_policy::Pageable { store: Pages::ZERO, swap },
            waited: self.waited,
        }
    }

    /// It as policy sees it when memory is given out. It waits for `wanted`; `swap` as for
    /// [`Run::party`].
    pub(crate) fn claimant(
        &self,
        spec: &VmSpec,
        pool: PoolId,
        now: Duration,
        wanted: Pages,
        swap: Pages,
    ) -> Party {
        let driver = self.driver(spec, now);
        Party {
            pool,
            shares: spec.shares,
            stage: Stage::Running,
            granted: self.charged(),
            certain: self.charged(),
            wanted,
            usable: spec.size,
            entitlement: self.entitlement,
            lent: self.lent,
            worth: self.worth,
            most: self.most,
            limit: spec.limit,
            reservation: spec.reservation,
            driver,
            inflates: self.inflates(spec, now),
            can_page: swap > Pages::ZERO,
            swap,
            waited: self.waiting,
            starved: self.waited,
            leeway: if self.charged() <= self.claim() { Pages::ZERO } else { self.leeway },
        }
    }

    /// What its guest wants to touch and cannot because the host lacks memory: it is in the
    /// balloon, on swap or waited for. What a guest has merely not come to yet does not count.
    fn short(&self) -> Pages {
        let memory = &self.guest.memory;
        self.guest.short().min(memory.ballooned + memory.on_swap() + self.missing)
    }

    pub(crate) fn frame(&self) -> VmFrame {
        let memory = &self.guest.memory;
        VmFrame {
            on: true,
            waits: self.wanted > Pages::ZERO,
            active: self.guest.want.active,
            estimate: self.active(),
            held: memory.held(),
            allocated: memory.allocated(),
            zero: memory.zero,
            common: memory.common,
            ballooned: memory.ballooned,
            swapped: memory.on_swap(),
            entitlement: self.entitlement,
            target: self.target,
            short: self.short(),
        }
    }
}
