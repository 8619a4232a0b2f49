use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_policy::{
    Claim, Driver, Grants, Host, LONG_WAIT, PoolId, Reservations, Rules, States, admit, decide,
};
use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use crate::course::{Course, Frame, Recorder, VmFrame};
use crate::guest::Speeds;
use crate::scenario::{Changed, Scenario};
use crate::vm::Run;

mod frames;
mod paging;

/// A host on paper: the daemon's policy, and models of everything around it.
pub struct Simulation {
    scenario: Scenario,
    now: Duration,
    step: u64,
    memory: Pages,
    rules: Rules,
    states: States,
    vms: Vec<Slot>,
    /// Frames of each sharing domain.
    frames: BTreeMap<String, Pages>,
    scan_credit: Vec<u64>,
    changes_done: usize,
    recorder: Recorder,
}

/// A VM and what has become of it.
struct Slot {
    pool: PoolId,
    life: Life,
}

enum Life {
    /// It has not started, or waits for the memory to start.
    Off {
        told: bool,
    },
    On(Box<Run>),
    Over,
}

impl Slot {
    fn run(&self) -> Option<&Run> {
        match &self.life {
            Life::On(run) => Some(run),
            Life::Off { .. } | Life::Over => None,
        }
    }

    fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.life {
            Life::On(run) => Some(run),
            Life::Off { .. } | Life::Over => None,
        }
    }
}

/// Runs a scenario to its end.
pub fn simulate(scenario: &Scenario) -> Course {
    let mut simulation = Simulation::new(scenario.clone());
    while simulation.step() {}
    simulation.recorder.end()
}

impl Simulation {
    /// The host before anything has happened.
    pub fn new(scenario: Scenario) -> Self {
        let slot = |vm: &crate::VmSpec| {
            let pool = vm.pool.as_ref().and_then(|name| scenario.pools.find(name));
            Slot { pool: pool.unwrap_or(PoolId::ROOT), life: Life::Off { told: false } }
        };
        Self {
            now: Duration::ZERO,
            step: 0,
            memory: Pages::floor(scenario.host.memory),
            rules: Rules { tax: scenario.host.tax, ..Rules::default() },
            states: States::default(),
            vms: scenario.vms.iter().map(slot).collect(),
            frames: BTreeMap::new(),
            scan_credit: vec![0; scenario.vms.len()],
            changes_done: 0,
            recorder: Recorder::new(&scenario),
            scenario,
        }
    }

    /// Goes on by a step; `false` at the end.
    pub fn step(&mut self) -> bool {
        if self.step >= self.scenario.steps() {
            return false;
        }
        self.change();
        self.end_lives();
        self.power_on();
        self.let_guests_run();
        self.work_balloons();
        self.share_pages();
        self.swap_out();
        self.control();
        let frame = self.frame();
        self.recorder.frame(frame);
        self.step += 1;
        self.now += self.scenario.step;
        true
    }

    /// Free machine memory. VMs hold the rest, as pages, shared frames and overheads.
    pub fn free(&self) -> Pages {
        let frames: Pages = self.frames.values().copied().sum();
        let held: Pages = self.runs().map(|(_, run)| run.guest.memory.held()).sum();
        self.memory.saturating_sub(self.overhead() + held + frames)
    }

    /// The host as it is.
    pub fn frame(&self) -> Frame {
        let frame = |slot: &Slot| slot.run().map_or(VmFrame::default(), Run::frame);
        Frame {
            at: self.now,
            state: self.states.current(),
            free: self.free(),
            overhead: self.overhead(),
            frames: self.frames.values().copied().sum(),
            vms: self.vms.iter().map(frame).collect(),
        }
    }

    fn overhead(&self) -> Pages {
        self.runs().map(|(i, _)| self.scenario.vms[i].overhead).sum()
    }

    fn runs(&self) -> impl Iterator<Item = (usize, &Run)> {
        self.vms.iter().enumerate().filter_map(|(i, slot)| slot.run().map(|run| (i, run)))
    }

    /// What `speed` comes to in this step. Summed over steps nothing is lost to rounding.
    fn in_step(&self, speed: Bytes) -> Pages {
        let by = |step: u64| {
            let bytes =
                u128::from(speed.0) * self.scenario.step.as_nanos() * u128::from(step) / 1_000_000_000;
            u64::try_from(bytes / u128::from(PAGE_SIZE)).unwrap_or(u64::MAX)
        };
        Pages(by(self.step + 1) - by(self.step))
    }

    fn change(&mut self) {
        while let Some(change) = self.scenario.changes.get(self.changes_done).filter(|c| c.at <= self.now) {
            let change = change.clone();
            self.changes_done += 1;
            match change.what {
                Changed::Tax(tax) => self.rules.tax = tax,
                Changed::Memory(memory) => self.memory = Pages::floor(memory),
                Changed::Vm { name, shares, reservation, limit } => {
                    let named = |vm: &&mut crate::VmSpec| vm.name == name || vm.group == name;
                    for vm in self.scenario.vms.iter_mut().filter(named) {
                        vm.shares = shares.unwrap_or(vm.shares);
                        vm.reservation = reservation.unwrap_or(vm.reservation);
                        vm.limit = limit.unwrap_or(vm.limit);
                    }
                }
            }
        }
    }

    fn end_lives(&mut self) {
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            let since = slot.run().map(|run| run.since);
            let ends = since.zip(spec.life).is_some_and(|(since, life)| since + life <= self.now);
            if ends {
                slot.life = Life::Over;
            }
        }
        self.settle_frames();
    }

    /// Starts the VMs whose time has come, in the scenario's order, as far as admission allows.
    fn power_on(&mut self) {
        for i in 0..self.vms.len() {
            let spec = &self.scenario.vms[i];
            let Life::Off { told } = self.vms[i].life else { continue };
            if spec.start > self.now {
                continue;
            }
            let (name, stream) = (spec.name.clone(), u64::try_from(i).unwrap_or(u64::MAX));
            match self.admit(i) {
                Ok(()) => {
                    let run = Run::new(spec, &self.scenario.host, self.scenario.seed, stream, self.now);
                    self.vms[i].life = Life::On(Box::new(run));
                }
                Err(why) if !told => {
                    self.recorder.event(self.now, &name, format!("does not start: {why}"));
                    self.vms[i].life = Life::Off { told: true };
                }
                Err(_) => {}
            }
        }
    }

    fn admit(&self, i: usize) -> Result<(), String> {
        let spec = &self.scenario.vms[i];
        let mut vms: Vec<Claim> = self.runs().map(|(j, _)| self.claim(j)).collect();
        let swap = Some(Pages::floor(self.scenario.host.swap)).filter(|swap| *swap > Pages::ZERO);
        let before =
            Reservations { machine: self.memory, swap, pools: &self.scenario.pools, vms: &vms.clone() };
        vms.push(self.claim(i));
        before.admits(&Reservations { vms: &vms, ..before }).map_err(|e| e.to_string())?;
        let open = self.round(|_| Pages::ZERO).0.open_in(self.vms[i].pool);
        admit(spec.reservation, spec.overhead, self.memory, open).map_err(|e| e.to_string())
    }

    fn claim(&self, i: usize) -> Claim {
        let spec = &self.scenario.vms[i];
        let (size, reservation, overhead) = (spec.size, spec.reservation, spec.overhead);
        Claim { pool: self.vms[i].pool, size, reservation, overhead }
    }

    /// Returns policy's grants, and the VM behind each party. VM `i` waits for `wanted(i)`.
    fn round(&self, wanted: impl Fn(usize) -> Pages) -> (Grants, Vec<usize>) {
        let left = self.swap_left();
        let party = |(i, run): (usize, &Run)| {
            let (spec, pool) = (&self.scenario.vms[i], self.vms[i].pool);
            (run.claimant(spec, pool, self.now, wanted(i), self.swap_of(i, left)), i)
        };
        let (parties, runs) = self.runs().map(party).unzip();
        let thresholds = self.scenario.host.thresholds.of(self.memory.bytes());
        (Grants::new(self.free(), thresholds, &self.scenario.pools, parties), runs)
    }

    /// Runs every guest as far as it gets memory, in policy's order of service.
    fn let_guests_run(&mut self) {
        let needs = self.needs();
        let (mut grants, runs) = self.round(|i| needs[i]);
        let mut swap_in = self.in_step(self.scenario.host.swap_speed);
        let mut writes = self.in_step(self.scenario.host.swap_speed);
        let idle = (0..runs.len()).filter(|party| needs[runs[*party]] == Pages::ZERO);
        for party in idle.chain(grants.order()).collect::<Vec<_>>() {
            self.let_guest_run(&mut grants, party, runs[party], &mut swap_in, &mut writes);
        }
    }

    /// What each guest could use in this step.
    fn needs(&mut self) -> Vec<Pages> {
        let mut needs = vec![Pages::ZERO; self.vms.len()];
        for (i, need) in needs.iter_mut().enumerate() {
            let (now, speeds) = (self.now, self.speeds(i));
            let spec = &self.scenario.vms[i];
            let Some(run) = self.vms[i].run_mut() else { continue };
            run.guest.look_ahead(&spec.guest, now.saturating_sub(run.since));
            *need = run.guest.clone().run(&spec.guest, speeds, Pages(u64::MAX >> 1)).machine;
        }
        needs
    }

    fn let_guest_run(
        &mut self,
        grants: &mut Grants,
        party: usize,
        i: usize,
        swap_in: &mut Pages,
        writes: &mut Pages,
    ) {
        let (step, need) = (self.scenario.step, grants.party(party).wanted);
        let before = grants.party(party).granted;
        let speeds = Speeds { swap_in: *swap_in, ..self.speeds(i) };
        let granted = self.granted(grants, party, i, need);
        let spec = &self.scenario.vms[i];
        let Some(run) = self.vms[i].run() else { return };
        // A guest waits for memory that it uses. It does without page cache.
        let lacking = need.saturating_sub(granted).min(run.guest.lacking(&spec.guest, speeds, granted));
        let replaced = self.replace(i, before, lacking, writes);
        let spec = &self.scenario.vms[i];
        let Some(run) = self.vms[i].run_mut() else { return };
        let taken = run.guest.run(&spec.guest, speeds, granted + replaced);
        *swap_in -= taken.swapped_in;
        self.recorder.swapped(Pages::ZERO, taken.swapped_in);
        let missing = lacking.saturating_sub(replaced);
        (run.missing, run.given, run.replaced) = (missing, granted, replaced);
        // A vCPU waits for one fault at a time, and a fault for a chunk.
        run.wanted = missing.min(Pages(u64::from(spec.vcpus) * Pages::CHUNK.0));
        let leeway = grants.party(party).leeway;
        run.waiting = if missing == Pages::ZERO { Duration::ZERO } else { run.waiting + step };
        run.waited |= run.waiting >= LONG_WAIT;
        if leeway > run.leeway {
            run.waiting = Duration::ZERO;
        }
        (run.leeway, run.level) = (leeway, run.level.saturating_add(granted));
        run.sampler.observe(&run.guest.memory, step, taken.machine, missing > Pages::ZERO);
        // Pages that it did not use or has freed serve others.
        grants.take_back(party, (before + granted).saturating_sub(run.charged()));
    }

    fn speeds(&self, i: usize) -> Speeds {
        let (host, guest) = (&self.scenario.host, &self.scenario.vms[i].guest);
        Speeds {
            zero: self.in_step(guest.zero_speed),
            touch: self.in_step(guest.touch_speed),
            fill: self.in_step(guest.fill_speed),
            swap_in: self.in_step(host.swap_speed),
        }
    }

    /// Gives VM `i` as many of the `need` machine pages that it could use as policy allows.
    fn granted(&self, grants: &mut Grants, party: usize, i: usize, need: Pages) -> Pages {
        let blocked = self.vms[i].run().is_none_or(|run| run.reclaim.block > Pages::ZERO);
        if blocked {
            return Pages::ZERO;
        }
        // The daemon gives to those that wait once a period.
        let rounds = self.scenario.step.as_nanos().div_ceil(LONG_WAIT.as_nanos());
        let mut granted = Pages::ZERO;
        for _ in 0..rounds {
            let more = grants.allowance(party).min(need - granted);
            grants.give(party, more);
            granted += more;
        }
        granted
    }

    fn work_balloons(&mut self) {
        let most = self.in_step(self.scenario.host.balloon_speed);
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            let Some(run) = slot.run_mut() else { continue };
            if run.driver(spec, self.now) != Driver::Follows {
                continue;
            }
            let has = run.guest.memory.ballooned;
            run.guest.memory.inflate(run.balloon.saturating_sub(has).min(most));
            run.guest.memory.deflate(has.saturating_sub(run.balloon).min(most));
        }
    }

    /// A VM that has waited in vain pages for itself until there is memory for it again.
    fn end_served_waits(&mut self) {
        let (grants, runs) = self.round(|_| Pages::ZERO);
        for (party, i) in runs.into_iter().enumerate() {
            let served = grants.could_have(party) > Pages::ZERO;
            if let Some(run) = self.vms[i].run_mut().filter(|_| served) {
                run.waited = false;
            }
        }
    }

    /// What the daemon does once a period: the state, then entitlements, targets and amounts to
    /// reclaim.
    fn control(&mut self) {
        self.end_served_waits();
        let thresholds = self.scenario.host.thresholds.of(self.memory.bytes());
        let free = self.free();
        self.states.pass(self.scenario.step);
        let state = self.states.observe(free, &thresholds);
        let host = Host {
            for_guests: self.memory.saturating_sub(self.overhead()),
            free,
            withheld: self.round(|_| Pages::ZERO).0.withheld(),
            thresholds,
            state,
            strained: self.states.is_strained(),
            elapsed: self.scenario.step,
        };
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            if let Some(run) = slot.run_mut() {
                run.observe(spec, self.now, self.scenario.step);
            }
        }
        let left = self.swap_left();
        let parties: Vec<(usize, plimsoll_policy::Vm)> = self
            .runs()
            .map(|(i, run)| {
                let (spec, pool) = (&self.scenario.vms[i], self.vms[i].pool);
                (i, run.party(spec, pool, self.now, self.swap_of(i, left)))
            })
            .collect();
        let vms: Vec<plimsoll_policy::Vm> = parties.iter().map(|(_, vm)| *vm).collect();
        let outcome = decide(&self.rules, &host, &self.scenario.pools, &vms);
        for ((i, _), decision) in parties.iter().zip(outcome.vms) {
            if let Some(run) = self.vms[*i].run_mut() {
                (run.entitlement, run.lent, run.worth) =
                    (decision.entitlement, decision.lent, decision.worth);
                (run.target, run.most) = (decision.target, decision.most);
                (run.balloon, run.reclaim, run.level) = (decision.balloon, decision.reclaim, decision.level);
            }
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fleet_tests;
