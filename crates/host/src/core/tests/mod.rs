//! The core, driven by inputs and judged by its effects and answers.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod explain;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod happening;
#[cfg(test)]
mod heartbeat;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod overview;
#[cfg(test)]
mod paging;
#[cfg(test)]
mod pause;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod pools;
#[cfg(test)]
mod power;
#[cfg(test)]
mod reconfigure;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod stall;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_policy::{Rules, Thresholds};
use plimsoll_protocol::change::VmChange;
use plimsoll_protocol::control::{
    ExitReason, Facts, FromVmm, SampleFacts, Sampled, SamplingConfig, SamplingFacts, ToVmm,
};
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::sharing::{ScanBudget, SharingKind};
use plimsoll_protocol::status::{BalloonHealth, Exit, HostStatus, Power, VmStatus};
use plimsoll_protocol::{OrNone, Shares, VmName};
use plimsoll_units::{Bytes, Pages};
#[cfg(test)]
use proptest::prelude::*;

use super::*;
use crate::domains::{Order, Plane, Report};
use crate::memory::Usable;

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

fn name(text: &str) -> VmName {
    text.parse().unwrap()
}

fn definition(name: &str, size: u64, more: &str) -> VmDefinition {
    let text = format!("name = '{name}'\nsize = '{size}MiB'\n{more}\n[boot]\nmodel = true\n");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

/// The machine has this much for VMs, with any margin.
fn usable_input(bytes: Bytes) -> Input {
    Input::Usable(Usable { now: bytes, lasting: bytes })
}

/// A core, and a world around it that records its effects.
struct World {
    core: Core,
    clock: Clock,
    begun: Instant,
    requests: u64,
    answers: BTreeMap<u64, Result<Answer, Failure>>,
    granted: BTreeMap<RunId, Pages>,
    balloons: BTreeMap<RunId, Pages>,
    levels: BTreeMap<RunId, (Pages, bool)>,
    /// The domains that VMs were told, with their descriptors: frames and window.
    sharing: BTreeMap<RunId, (SharingKind, Vec<File>)>,
    said: Vec<(RunId, ToVmm)>, // Messages about pages to VMMs.
    /// What operators had VMMs do.
    told: Vec<(RunId, ToVmm)>,
    scans: BTreeMap<RunId, ScanBudget>,
    killed: Vec<RunId>,
    cleared: Vec<RunId>,
    launches: Vec<(RunId, Pages)>,
    forgotten: Vec<VmName>,
    saved: Vec<Record>,
    saved_pools: Option<Vec<PoolDefinition>>,
    recorded: Option<u64>, // The id of the last event that was to be written.
    /// VMs whose samples are never touched.
    idle: Vec<RunId>,
    plane: Plane,
    /// Orders that the plane has not carried out, and reports that the core has not heard.
    orders: VecDeque<Order>,
    reports: VecDeque<Report>,
    /// The plane does nothing by itself.
    slow: bool,
    busy: bool, // The daemon has more to take before it serves VMs that wait.
}

impl World {
    fn new(budget: u64) -> Self {
        let clock = Clock { now: Instant::now(), at: Timestamp::UNIX_EPOCH };
        let settings = Settings {
            budget: mib(budget),
            automatic: None,
            thresholds: Thresholds::sliding(Bytes::mib(budget)),
            rules: Rules::default(),
            sampling: SamplingConfig { samples: 100, period: SECOND * 30 },
            eager_sharing: false,
            no_swap: Some("it is switched off".to_owned()),
            swap: None,
            paths: Paths { state: "/s".into(), run: "/r".into(), images: "/i".into() },
            boot_id: Some("this boot".to_owned()),
        };
        Self {
            core: Core::new(settings, Vec::new(), Pools::default(), clock),
            clock,
            begun: clock.now,
            requests: 0,
            answers: BTreeMap::new(),
            granted: BTreeMap::new(),
            balloons: BTreeMap::new(),
            levels: BTreeMap::new(),
            sharing: BTreeMap::new(),
            said: Vec::new(),
            told: Vec::new(),
            scans: BTreeMap::new(),
            killed: Vec::new(),
            cleared: Vec::new(),
            launches: Vec::new(),
            forgotten: Vec::new(),
            saved: Vec::new(),
            saved_pools: None,
            recorded: None,
            idle: Vec::new(),
            plane: Plane::default(),
            orders: VecDeque::new(),
            reports: VecDeque::new(),
            slow: false,
            busy: false,
        }
    }

    fn input(&mut self, input: Input) {
        self.handle(input);
        if !self.slow {
            self.catch_up();
        }
        if !self.busy && self.core.has_to_serve() {
            self.handle(Input::Serve);
        }
    }

    /// The plane carries out all orders, and the core hears all reports.
    fn catch_up(&mut self) {
        while self.carry_out() | self.hear() {}
        assert_eq!(self.core.ledger.frames(), self.plane.frames());
        assert_eq!(self.core.ledger.orphaned(), Pages(0));
    }

    /// The plane carries out one order, if there is one.
    fn carry_out(&mut self) -> bool {
        let report = self.orders.pop_front().map(|order| self.plane.carry_out(order));
        self.reports.extend(report);
        !self.reports.is_empty()
    }

    /// The core hears one report, if there is one.
    fn hear(&mut self) -> bool {
        let Some(report) = self.reports.pop_front() else { return false };
        self.handle(Input::Reported(Box::new(report)));
        true
    }

    fn handle(&mut self, input: Input) {
        let effects = self.core.handle(self.clock, input);
        assert!(self.core.ledger.adds_up());
        for effect in effects {
            match effect {
                Effect::Launch { run, grant, .. } => {
                    self.launches.push((run, grant));
                    self.granted.insert(run, grant);
                }
                Effect::Grant { run, pages, total } => {
                    let granted = self.granted.entry(run).or_default();
                    *granted += pages;
                    assert_eq!(*granted, total);
                    if let Some((level, _)) = self.levels.get_mut(&run) {
                        *level = level.saturating_add(pages);
                    }
                }
                Effect::Returned { run, total } => {
                    self.granted.insert(run, total);
                }
                Effect::Send(run, ToVmm::BalloonTarget(pages)) => {
                    self.balloons.insert(run, pages);
                }
                Effect::Send(run, ToVmm::Paging { level, block }) => {
                    let told = level.map(|level| (level, block));
                    assert_ne!(self.levels.get(&run).copied(), told, "told twice");
                    told.and_then(|told| self.levels.insert(run, told));
                }
                Effect::SendWith(run, ToVmm::Sharing { domain, .. }, fds) => {
                    self.sharing.insert(run, (domain, fds.into_iter().map(File::from).collect()));
                }
                Effect::Send(
                    run,
                    message @ (ToVmm::Found { .. } | ToVmm::Offered { .. } | ToVmm::Share { .. }),
                ) => {
                    self.said.push((run, message));
                }
                Effect::Send(run, ToVmm::Budget(scan)) => {
                    self.scans.insert(run, scan);
                }
                Effect::Order(order) => self.orders.push_back(order),
                Effect::Kill(run) => self.killed.push(run),
                Effect::Clear(run, _) => self.cleared.push(run),
                Effect::Forget(name, answers) => {
                    self.forgotten.push(name);
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::SavePools(pools, answers) => {
                    self.saved_pools = Some(pools);
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::Keep(record, ..) => self.saved.push(*record),
                Effect::Save(record, answers) => {
                    self.saved.push(*record);
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::Rename(name, record, answers) => {
                    self.saved.push(*record);
                    self.forgotten.push(name);
                    self.answers.extend(answers.into_iter().map(|(id, answer)| (id.0, answer)));
                }
                Effect::Record(event) => {
                    let last = self.recorded.replace(event.id).unwrap_or(0);
                    assert_eq!(event.id, last + 1, "an event is not on disk");
                }
                Effect::Answer(id, answer) => {
                    assert!(self.answers.insert(id.0, answer).is_none(), "answered twice");
                }
                Effect::Send(run, message @ (ToVmm::Pause(_) | ToVmm::Reset | ToVmm::Device(_))) => {
                    self.told.push((run, message))
                }
                Effect::Dial { .. } | Effect::Grow(_) | Effect::RecordMissingJail(..) => {}
                Effect::Send(..) | Effect::SendWith(..) | Effect::Joins(..) => {}
            }
        }
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.requests += 1;
        self.input(Input::Request(RequestId(self.requests), Box::new(request)));
        self.requests
    }

    fn answer(&mut self, request: Request) -> Result<Answer, Failure> {
        let id = self.ask(request);
        self.answers.remove(&id).expect("it is answered at once")
    }

    fn vm(&mut self, vm: &str) -> VmStatus {
        match self.answer(Request::Get(name(vm))) {
            Ok(Answer::Vm(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn host(&mut self) -> HostStatus {
        match self.answer(Request::Host) {
            Ok(Answer::Host(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Creates a VM and brings it up.
    fn up(&mut self, definition: VmDefinition) -> RunId {
        let id = self.ask(Request::Create(Box::new(definition)));
        let run = RunId(self.core.last_run);
        self.input(Input::Launched(run, Ok(Started::example())));
        self.say(run, FromVmm::Running { missing_jail: vec![] });
        assert!(matches!(self.answers.remove(&id), Some(Ok(Answer::Vm(vm))) if vm.power == Power::On));
        run
    }

    /// A VM of an earlier daemon before its VMM has answered.
    fn discovered(adopted: &Adopted, why: &str) -> Discovered {
        Discovered {
            vm: adopted.definition.name.clone(),
            pid: Some(adopted.pid),
            started: Some(adopted.started),
            definition: Some(adopted.definition.clone()),
            recorded: adopted.recorded,
            swap: adopted.swap,
            kernel: adopted.kernel,
            domains: Some(adopted.domains.clone()),
            former: adopted.former.clone(),
            why: why.to_owned(),
        }
    }

    /// Finds a VM of an earlier daemon that does not answer.
    fn discover(&mut self, adopted: &Adopted, why: &str) -> RunId {
        let run = self.core.discover(Self::discovered(adopted, why));
        self.input(Input::Unreachable(run, why.to_owned()));
        run
    }

    /// Finds a VM of an earlier daemon whose VMM answers at once.
    fn adopt(&mut self, adopted: Adopted) -> RunId {
        let run = self.core.discover(Self::discovered(&adopted, "its VMM has not answered yet"));
        self.granted.insert(run, adopted.facts.grant);
        self.input(Input::Reached(run, Box::new(adopted)));
        run
    }

    fn say(&mut self, run: RunId, message: FromVmm) {
        self.input(Input::Message(run, Box::new(message)));
    }

    /// Samples of pages of `held`, none of them touched.
    fn untouched(&self, held: Pages) -> SamplingFacts {
        let pages = Sampled { population: held.0, sampled: 100.min(held.0), touched: 0 };
        let sample = SampleFacts { elapsed: SECOND * 30, pages, ..SampleFacts::default() };
        let executed = self.executed();
        SamplingFacts { executed, period: 2 + executed.as_secs() / 30, now: sample, last: sample }
    }

    /// How long VMs have executed that never wait.
    fn executed(&self) -> Duration {
        self.clock.now.saturating_duration_since(self.begun)
    }

    /// A VMM that pages out at once what it holds beyond its level.
    fn obey_level(&mut self, run: RunId) {
        let level = self.levels.get(&run).map_or(Pages(u64::MAX), |(level, _)| *level);
        let over = self.granted[&run].saturating_sub(level);
        if over > Pages(0) {
            self.say(run, FromVmm::Return(over));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.now += time;
        self.input(Input::Tick);
    }

    /// An honest VM that holds all it was granted reports.
    fn report(&mut self, run: RunId, ballooned: Pages) {
        let grant = self.granted[&run];
        let wanted = self.core.run(run).unwrap().wanted;
        let facts = Facts {
            grant,
            held: grant,
            wanted,
            ballooned,
            balloon_actual: ballooned,
            balloon_driver: true,
            sampling: if self.idle.contains(&run) {
                self.untouched(grant)
            } else {
                SamplingFacts { executed: self.executed(), ..SamplingFacts::default() }
            },
            ..Facts::default()
        };
        self.say(run, FromVmm::Report(facts));
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A guest whose balloon does as it is told, and whose VMM returns what that frees.
fn follow(world: &mut World, run: RunId) {
    let balloon = world.balloons.get(&run).copied().unwrap_or_default();
    let most = mib(256) - balloon;
    let over = world.granted[&run].saturating_sub(most);
    if over > Pages(0) {
        world.say(run, FromVmm::Return(over));
    }
    world.report(run, balloon);
}
