//! What the daemon decides, without doing any of it.
//!
//! [`Core`] is a state machine: [`Core::handle`] takes one [`Input`] (a request of a user, a
//! message of a VMM, the end of a process, the clock) and returns the [`Effect`]s that the daemon
//! has to carry out, in order. It reads no clock and does no I/O but its log, so every course of
//! events can be tested. The ledger is whole between any two inputs.
//!
//! [`requests`] answers users (with [`definitions`], [`devices`], [`resize`], [`mod@pause`], and
//! [`pools`] for resource pools), [`messages`] VMMs, [`control`] is the loop, [`budget`] follows
//! the machine, [`divide`] divides memory, [`grants`] gives it out, [`sharing`] has VMs share pages
//! (through [`crate::domains`]), [`mod@unreachable`] takes over VMs of an earlier daemon,
//! [`heartbeat`] notices VMMs that say nothing, [`scan`] has VMs look for pages to share, [`stall`]
//! counts stalled time, [`status`] tells of it, [`explain`] why.

mod admission;
mod budget;
mod control;
mod definitions;
mod devices;
mod divide;
mod effect;
mod explain;
mod grants;
mod heartbeat;
mod input;
mod lifecycle;
mod membership;
mod messages;
mod mirror;
mod noise;
mod pause;
mod pool_table;
mod pools;
mod rates;
mod reconfigure;
mod request;
mod requests;
mod resize;
mod run;
mod scan;
mod sharing;
mod stall;
mod stall_account;
mod state_news;
mod status;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, unused_imports, reason = "tests use more of it"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests, which fuzzing uses as well")]
mod tests;
mod tokens;
mod unreachable;
mod unsaved;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_policy::{Rules, States, Thresholds};
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::Event;
use plimsoll_protocol::control::SamplingConfig;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::TurnStatus;
use plimsoll_units::{Bytes, Pages};

pub(crate) use self::budget::AutomaticBudget;
pub(crate) use self::effect::Effect;
pub(crate) use self::input::{Input, KernelAccount, ProcessMemory, Started};
use self::mirror::Mirror;
use self::pools::place;
pub(crate) use self::request::{Answer, Failure, FailureKind, Overview, Request, RequestId};
pub(crate) use self::resize::Growing;
pub(crate) use self::run::Run;
use self::state_news::StateNews;
#[cfg(feature = "fuzzing")]
pub(crate) use self::tests::fuzz;
use self::tokens::Askers;
pub(crate) use self::unreachable::{Adopted, Discovered};
pub(crate) use self::unsaved::unsaved_note;
use crate::events::Events;
use crate::history::Recorder;
use crate::inventory::{Record, Unread};
use crate::ledger::Ledger;
use crate::paths::Paths;
use crate::pools::Pools;
use crate::processors::Processors;
pub(crate) use crate::run_id::RunId;

/// A moment, by the monotonic clock and by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    pub(crate) at: Timestamp,
}

/// The part of the configuration that the core needs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) budget: Pages,
    /// `None`: the operator named the budget.
    pub(crate) automatic: Option<AutomaticBudget>,
    pub(crate) thresholds: Thresholds,
    pub(crate) rules: Rules,
    pub(crate) sampling: SamplingConfig,
    /// VMs look for pages to share in every state as they do in state soft.
    pub(crate) eager_sharing: bool,
    /// Why VMs that start get no swap space; `None`: they get some.
    pub(crate) no_swap: Option<String>,
    /// Most swap space of all VMs; `None`: admission does not look at it.
    pub(crate) swap: Option<Pages>,
    pub(crate) paths: Paths,
    /// This boot of the machine; `None`: unknown.
    pub(crate) boot_id: Option<String>,
}

/// A VM that the host knows.
#[derive(Debug)]
struct Vm {
    record: Record,
    /// Its record on disk cannot be read: `record` is the part that is known, and is not written.
    unread: Option<Unread>,
    run: Option<RunId>,
}

impl Vm {
    fn off(record: Record) -> Self {
        Self { record, unread: None, run: None }
    }
}

/// The daemon's decisions, and all that they need.
#[derive(Debug)]
pub(crate) struct Core {
    settings: Settings,
    ledger: Ledger,
    /// Sharing domains, by the last reports.
    mirror: Mirror,
    processors: Processors,
    /// The last turns of the daemon's loop.
    turns: Option<TurnStatus>,
    vms: BTreeMap<VmName, Vm>,
    pools: Pools,
    runs: BTreeMap<RunId, Box<Run>>,
    states: States,
    state_news: StateNews,
    events: Events,
    recorder: Recorder,
    last_run: u64,
    /// The VMs that ask the plane.
    askers: Askers,
    /// Orders under way that take over frames. Until all are reported nothing is given out.
    recovering: usize,
    /// [`Order::Tidy`](crate::domains::Order::Tidy) is under way.
    tidying: bool,
    clock: Clock,
    last_control: Instant,
    /// When the machine's memory was looked at last.
    last_usable: Instant,
    urgent: bool,
    /// Memory has come back since VMs that wait were served last: see [`Input::Serve`].
    returned: bool,
    /// The VMs that have asked for memory and wait for the answer: see [`Input::Serve`].
    asked: BTreeSet<RunId>,
    /// A VM waits and was given nothing: memory is divided anew very soon.
    pressing: bool,
    peak_kernel: Bytes,
    /// Time that VMs were stalled since the daemon started, added up: some and all of each.
    stalled: (Duration, Duration),
    /// Changes that are not on disk, and why: see [`Input::Unsaved`].
    unsaved: BTreeMap<Option<VmName>, String>,
    effects: Vec<Effect>,
    /// How often a VM was looked at, for tests of how work grows with VMs.
    #[cfg(test)]
    looks: std::cell::Cell<u64>,
}

impl Core {
    /// A core that knows the VMs of `records`, all of them off, and their pools.
    pub(crate) fn new(settings: Settings, records: Vec<Record>, pools: Pools, clock: Clock) -> Self {
        let vms = records
            .into_iter()
            .map(|mut record| {
                place(&mut record, &pools);
                (record.definition.name.clone(), Vm::off(record))
            })
            .collect();
        Self {
            ledger: Ledger::new(settings.budget),
            settings,
            mirror: Mirror::default(),
            processors: Processors::default(),
            turns: None,
            vms,
            pools,
            runs: BTreeMap::new(),
            states: States::default(),
            state_news: StateNews::default(),
            events: Events::default(),
            recorder: Recorder::default(),
            last_run: 0,
            askers: Askers::default(),
            recovering: 0,
            tidying: false,
            clock,
            last_control: clock.now,
            last_usable: clock.now,
            urgent: false,
            returned: false,
            asked: BTreeSet::new(),
            pressing: false,
            peak_kernel: Bytes::ZERO,
            stalled: (Duration::ZERO, Duration::ZERO),
            unsaved: BTreeMap::new(),
            effects: Vec::new(),
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    /// Takes one input. Returns the effects, in the order in which they must be carried out.
    pub(crate) fn handle(&mut self, clock: Clock, input: Input) -> Vec<Effect> {
        self.clock = clock;
        match input {
            Input::Request(id, request) => self.request(id, *request),
            Input::Launched(run, result) => self.launched(run, result),
            Input::Message(run, message) => self.message(run, *message),
            Input::Reached(run, adopted) => self.reached(run, *adopted),
            Input::Unreachable(run, why) => self.unreachable(run, why),
            Input::Identified(run, pid) => self.identified(run, pid),
            Input::Closed(run) => self.closed(run),
            Input::Broken(run, how) => self.breach(run, &how),
            Input::Exited(run, how) => self.exited(run, how),
            Input::Processes(processes) => self.processes(&processes),
            Input::Guests(guests) => self.guests(&guests),
            Input::Usable(usable) => self.usable(usable),
            Input::Processors(processors) => self.processors = processors,
            Input::Turned(turns) => self.turns = Some(turns),
            Input::Unsent(run, domain, pages) => self.unsent(run, domain, pages),
            Input::NotDialed(run, port, why) => self.not_dialed(run, port, &why),
            Input::Reported(report) => self.reported(*report),
            Input::Unsaved(vm, why) => self.unsaved(vm, why),
            Input::Grown(growing, result) => self.grown(growing, result),
            Input::Kept(growing, result) => self.tell_size(&growing, result),
            Input::Reconfigured(settings, news) => self.reconfigure(*settings, news),
            Input::Serve => self.serve(),
            Input::Tick => {
                if clock.now >= self.due() {
                    self.control();
                }
            }
        }
        self.observe_state();
        debug_assert!(self.ledger.adds_up(), "{:?}", self.ledger);
        debug_assert_eq!(self.ledger.frames(), self.mirror.frames() + self.ledger.orphaned());
        std::mem::take(&mut self.effects)
    }

    /// Whether VMs have asked for memory, or memory has come back that VMs may wait for.
    pub(crate) fn has_to_serve(&self) -> bool {
        self.returned || !self.asked.is_empty()
    }

    /// When the core wants to hear [`Input::Tick`] next.
    pub(crate) fn due(&self) -> Instant {
        self.last_control
            + match (self.pressing, self.urgent) {
                (true, _) => control::AT_ONCE,
                (false, true) => control::SHORTEST,
                (false, false) => control::PERIOD,
            }
    }

    /// The range of guest memory of each run, by its VMM's report.
    pub(crate) fn ranges(&self) -> Vec<(RunId, (u64, Bytes))> {
        self.running().map(|(_, run)| (run.id, run.facts.ram)).collect()
    }

    fn vm(&self, name: &VmName) -> Option<&Vm> {
        self.vms.get(name)
    }

    fn run(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run).map(Box::as_ref)
    }

    fn definition_of(&self, run: RunId) -> Option<&VmDefinition> {
        Some(&self.vm(&self.run(run)?.vm)?.record.definition)
    }

    fn run_mut(&mut self, run: RunId) -> Option<&mut Run> {
        self.runs.get_mut(&run).map(Box::as_mut)
    }

    fn name_of(&self, run: RunId) -> Option<VmName> {
        self.run(run).map(|run| run.vm.clone())
    }

    fn run_of(&self, vm: &VmName) -> Option<&Run> {
        self.run(self.vm(vm)?.run?)
    }

    fn run_of_mut(&mut self, vm: &VmName) -> Option<&mut Run> {
        self.run_mut(self.vm(vm)?.run?)
    }

    /// All VMs that have a process or will soon, with their definitions, by their names.
    fn running(&self) -> impl Iterator<Item = (&VmDefinition, &Run)> {
        self.vms.values().filter_map(|vm| {
            #[cfg(test)]
            self.looks.set(self.looks.get() + 1);
            Some((&vm.record.definition, self.run(vm.run?)?))
        })
    }

    /// Takes up the events of earlier daemons, before there are new ones.
    pub(crate) fn restore_events(&mut self, events: Vec<Event>) {
        self.events = Events::of(events);
    }

    /// Takes up a VM whose record on disk cannot be read. The record and its name stay.
    pub(crate) fn unreadable(&mut self, record: Record, unread: Unread) {
        let name = record.definition.name.clone();
        self.event(Some(&name), format!("cannot be started: {}", unread.why));
        self.vms.insert(name, Vm { unread: Some(unread), ..Vm::off(record) });
    }

    /// Adds an event about the host from before there was a core.
    pub(crate) fn announce(&mut self, text: String) {
        self.event(None, text);
    }

    /// Writes a VM's record, and gives the answers afterwards.
    fn save(&mut self, name: &VmName, answers: Vec<(RequestId, Result<Answer, Failure>)>) {
        match self.vms.get(name) {
            Some(vm) if vm.unread.is_none() => {
                let record = Box::new(vm.record.clone());
                self.effect(Effect::Save(record, answers));
            }
            _ => answers.into_iter().for_each(|(id, answer)| self.effect(Effect::Answer(id, answer))),
        }
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn event(&mut self, vm: Option<&VmName>, text: impl Into<String>) {
        let event = self.events.add(self.clock.at, vm.cloned(), text.into()).clone();
        let (event_id, text) = (event.id, &event.text);
        match vm {
            Some(vm) => tracing::info!(%vm, event_id, "{text}"),
            None => tracing::info!(event_id, "{text}"),
        }
        self.effect(Effect::Record(event));
    }

    fn observe_state(&mut self) {
        let before = self.states.current();
        let state = self.states.observe(self.ledger.free(), &self.settings.thresholds);
        self.urgent |= state > before;
        if self.state_news.observe(state, self.clock.now) {
            let (free, budget) = (self.ledger.free().bytes(), self.ledger.budget().bytes());
            self.event(None, format!("state {state}: {free} of {budget} free"));
        }
    }
}

/// A VM's reservation in pages.
fn reservation(definition: &VmDefinition) -> Pages {
    Pages::ceil(definition.reservation)
}

/// The smaller of a VM's limit and size, in pages.
fn limit(definition: &VmDefinition) -> Pages {
    Pages::floor(definition.limit())
}

/// A VM's size in pages.
fn size(definition: &VmDefinition) -> Pages {
    Pages::floor(definition.size)
}

/// The ledger's charge for a VM besides its guest's memory.
fn overhead(definition: &VmDefinition) -> Pages {
    definition.overhead()
}

/// How long a request waits for a VM that is being started or killed before it is answered anyway:
/// a VMM is set up in well under a second, and a process that waits uninterruptibly dies later.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a VMM may take to end once it has said so: it closes its disks.
const LAST_GRACE: Duration = Duration::from_secs(5);
