use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_policy::{
    Claim, Driver, Host, Mechanisms, Paging, PoolId, Reservations, Rules, State, States, admit, allowance,
    decide,
};
use plimsoll_units::{Bytes, PAGE_SIZE, Pages};

use crate::course::{Course, Frame, Recorder, VmFrame};
use crate::guest::Speeds;
use crate::memory::{Memory, portion};
use crate::scenario::{Changed, Scenario};
use crate::sharing::{divide_scan, share};
use crate::vm::Run;

/// The daemon's control period, after which a VM that has waited in vain gets its chunk for patience.
const PATIENCE: Duration = Duration::from_secs(1);

/// A host on paper: the daemon's policy, and models of everything around it.
pub struct Simulation {
    scenario: Scenario,
    now: Duration,
    step: u64,
    memory: Pages,
    rules: Rules,
    states: States,
    /// What reclaims memory.
    mechanisms: Mechanisms,
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
            mechanisms: Mechanisms::of(State::High),
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

    /// Machine memory that nobody has. The rest is what VMs hold, shared frames and overheads.
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

    /// Starts who is due, the first first, as far as admission allows.
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
        let open = self.free().saturating_sub(self.withheld_from(i));
        admit(spec.reservation, spec.overhead, self.memory, open).map_err(|e| e.to_string())
    }

    fn claim(&self, i: usize) -> Claim {
        let spec = &self.scenario.vms[i];
        let (size, reservation, overhead) = (spec.size, spec.reservation, spec.overhead);
        Claim { pool: self.vms[i].pool, size, reservation, overhead }
    }

    /// What is promised to others than VM `i` and not charged to them yet.
    fn withheld_from(&self, i: usize) -> Pages {
        let others = self.runs().filter(|(j, _)| *j != i);
        others.map(|(j, run)| self.scenario.vms[j].reservation.saturating_sub(run.charged())).sum()
    }

    /// Every guest does what it wants to as far as it gets memory, the smallest need first, as the daemon serves them.
    fn let_guests_run(&mut self) {
        let step = self.scenario.step;
        let mut needs = Vec::new();
        for i in 0..self.vms.len() {
            let (now, speeds) = (self.now, self.speeds(i));
            let spec = &self.scenario.vms[i];
            let Some(run) = self.vms[i].run_mut() else { continue };
            run.guest.look_ahead(&spec.guest, now.saturating_sub(run.since));
            let need = run.guest.clone().run(&spec.guest, speeds, Pages(u64::MAX >> 1)).machine;
            needs.push((need, i));
        }
        needs.sort_unstable();
        let mut swap_in = self.in_step(self.scenario.host.swap_speed);
        let mut writes = self.in_step(self.scenario.host.swap_speed);
        for (need, i) in needs {
            let speeds = Speeds { swap_in, ..self.speeds(i) };
            let granted = self.granted(i, need);
            let replaced = self.replace(i, need.saturating_sub(granted), &mut writes);
            let spec = &self.scenario.vms[i];
            let Some(run) = self.vms[i].run_mut() else { continue };
            let taken = run.guest.run(&spec.guest, speeds, granted + replaced);
            swap_in -= taken.swapped_in;
            self.recorder.swapped(Pages::ZERO, taken.swapped_in);
            let missing = need.saturating_sub(granted + replaced);
            run.missing = missing;
            // A vCPU waits for one fault at a time, and a fault for a chunk.
            run.wanted = missing.min(Pages(u64::from(spec.vcpus) * Pages::CHUNK.0));
            run.waiting = if missing == Pages::ZERO { Duration::ZERO } else { run.waiting + step };
            run.sampler.observe(&run.guest.memory, step, taken.machine, missing > Pages::ZERO);
        }
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

    /// What VM `i` may have of the `need` machine pages that it could use.
    fn granted(&self, i: usize, need: Pages) -> Pages {
        let Some(run) = self.vms[i].run().filter(|_| need > Pages::ZERO) else { return Pages::ZERO };
        let spec = &self.scenario.vms[i];
        if run.reclaim.block > Pages::ZERO {
            return Pages::ZERO;
        }
        let thresholds = self.scenario.host.thresholds.of(self.memory.bytes());
        let mut left = self.free();
        let withheld = self.withheld_from(i);
        let mut granted = Pages::ZERO;
        // One round for the step, and one for each period that it has waited through.
        let patience = if run.waiting.is_zero() {
            0
        } else {
            self.scenario.step.as_nanos().div_ceil(PATIENCE.as_nanos())
        };
        for round in 0..=patience {
            let mut waiting = run.waits_for(spec, need - granted, round > 0);
            waiting.grant += granted;
            let more = allowance(&waiting, left, withheld, &thresholds).min(need - granted);
            granted += more;
            left -= more;
        }
        granted
    }

    /// Faults of VM `i` that get nothing replace pages of its own, where paging reclaims from it. Returns how many.
    fn replace(&mut self, i: usize, need: Pages, writes: &mut Pages) -> Pages {
        let most = (*writes).min(self.swap_left());
        if !self.pages_out(i) {
            return Pages::ZERO;
        }
        let Some(run) = self.vms[i].run_mut().filter(|run| run.reclaim.block == Pages::ZERO) else {
            return Pages::ZERO;
        };
        let (freed, written) = run.guest.memory.swap_out(need, most);
        *writes -= written;
        self.recorder.swapped(written, Pages::ZERO);
        freed
    }

    /// Whether VM `i` gives memory by paging.
    fn pages_out(&self, i: usize) -> bool {
        let spec = &self.scenario.vms[i];
        let follows = self.vms[i].run().is_some_and(|run| run.driver(spec, self.now) == Driver::Follows);
        match self.mechanisms.paging {
            Paging::Off => false,
            Paging::WhereNoBalloonCan => !follows,
            Paging::Everybody => true,
        }
    }

    fn swap_left(&self) -> Pages {
        let used: Pages = self.runs().map(|(_, run)| run.guest.memory.on_swap()).sum();
        Pages::floor(self.scenario.host.swap).saturating_sub(used)
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

    fn share_pages(&mut self) {
        let scanned = self.in_step(self.scenario.host.scan_speed);
        let held: Vec<Pages> =
            self.vms.iter().map(|slot| slot.run().map_or(Pages::ZERO, |r| r.guest.memory.held())).collect();
        let looks = divide_scan(scanned, &held, &mut self.scan_credit);
        for ((slot, spec), look) in self.vms.iter_mut().zip(&self.scenario.vms).zip(looks) {
            if let Some(run) = slot.run_mut().filter(|_| look > Pages::ZERO) {
                run.scan.look(&mut run.guest.memory, look, spec.guest.common);
            }
        }
        self.settle_frames();
    }

    /// Lets each domain share what was found, and charges its frames to its sharers.
    fn settle_frames(&mut self) {
        let mut domains: BTreeMap<&str, Vec<&mut Run>> = BTreeMap::new();
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            if let (Some(run), Some(domain)) = (slot.run_mut(), &spec.guest.domain) {
                domains.entry(domain).or_default().push(run);
            }
        }
        self.frames.clear();
        for (domain, mut runs) in domains {
            let mut sharers: Vec<(&mut Memory, Pages)> = runs
                .iter_mut()
                .map(|run| {
                    let known = run.scan.known();
                    (&mut run.guest.memory, known)
                })
                .collect();
            let frames = share(&mut sharers);
            let all: Pages = runs.iter().map(|run| run.guest.memory.common).sum();
            for run in &mut runs {
                run.frames = portion(frames, run.guest.memory.common, all);
            }
            self.frames.insert(domain.to_owned(), frames);
        }
    }

    /// Writes out what policy wants paged from each VM, as far as the disk and the swap space allow.
    fn swap_out(&mut self) {
        let mut writes = self.in_step(self.scenario.host.swap_speed).min(self.swap_left());
        let mut written_in_all = Pages::ZERO;
        for slot in &mut self.vms {
            let Some(run) = slot.run_mut().filter(|run| run.reclaim.swap > Pages::ZERO) else { continue };
            // What has gone meanwhile need not go again.
            let above = run.charged().saturating_sub(run.target);
            let (_, written) = run.guest.memory.swap_out(run.reclaim.swap.min(above), writes);
            writes -= written;
            written_in_all += written;
        }
        self.recorder.swapped(written_in_all, Pages::ZERO);
    }

    /// What the daemon does once a period: the state, then entitlements, targets and amounts to reclaim.
    fn control(&mut self) {
        let thresholds = self.scenario.host.thresholds.of(self.memory.bytes());
        let free = self.free();
        let state = self.states.observe(free, &thresholds);
        let host = Host {
            for_guests: self.memory.saturating_sub(self.overhead()),
            free,
            withheld: Pages::ZERO,
            thresholds,
            state,
            elapsed: self.scenario.step,
        };
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            if let Some(run) = slot.run_mut() {
                run.observe(spec, self.scenario.step);
            }
        }
        let parties: Vec<(usize, plimsoll_policy::Vm)> = self
            .runs()
            .map(|(i, run)| (i, run.party(&self.scenario.vms[i], self.vms[i].pool, self.now)))
            .collect();
        let vms: Vec<plimsoll_policy::Vm> = parties.iter().map(|(_, vm)| *vm).collect();
        let outcome = decide(&self.rules, &host, &self.scenario.pools, &vms);
        self.mechanisms = outcome.mechanisms;
        for ((i, _), decision) in parties.iter().zip(outcome.vms) {
            if let Some(run) = self.vms[*i].run_mut() {
                (run.entitlement, run.target, run.most) =
                    (decision.entitlement, decision.target, decision.most);
                (run.balloon, run.reclaim) = (decision.balloon, decision.reclaim);
            }
        }
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
