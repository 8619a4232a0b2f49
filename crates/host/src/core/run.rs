use std::time::{Duration, Instant};

use plimsoll_policy::{Inflation, Need, PagingCause, Spare};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{ExitReason, Facts, SamplingConfig};
use plimsoll_protocol::definition::JailPart;
use plimsoll_units::Pages;

use super::heartbeat::Heartbeat;
use super::membership::Membership;
use super::noise::Noise;
use super::rates::Rates;
use super::resize::Growth;
use super::stall_account::StallAccount;
use super::usage::Usage;
use super::{KernelAccount, RequestId, RunId};
use crate::inventory::Record;
use crate::liveness::Liveness;

/// A VM that has a process, or is about to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    /// The VM.
    pub(crate) vm: VmName,
    pub(crate) phase: Phase,
    pub(crate) pid: Option<u32>,
    /// The last report of its VMM, within what is possible.
    pub(crate) facts: Facts,
    /// Pages that it waits for and that have not been granted since.
    pub(crate) wanted: Pages,
    /// Pages that it waits for beyond its limit: shown, never granted.
    pub(crate) beyond: Pages,
    /// Since when it waits, or last got leeway.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) usage: Usage,
    /// Its need, by its samples and its waits.
    pub(crate) need: Need,
    /// The memory that its guest can spare for its balloon.
    pub(crate) spare: Spare,
    /// The speed of its balloon.
    pub(crate) inflation: Inflation,
    /// What has happened since memory was last divided.
    pub(crate) since_division: SinceDivision,
    pub(crate) stall: StallAccount,
    pub(crate) heartbeat: Heartbeat,
    /// How many events its VMM may still cause.
    pub(crate) noise: Noise,
    /// What policy has decided for it.
    pub(crate) decided: Decided,
    /// Pages that it got as leeway: see [`Party::leeway`](plimsoll_policy::Party::leeway).
    pub(crate) leeway: Pages,
    /// Its swap space; zero without one.
    pub(crate) swap: Pages,
    /// The last message to it about paging.
    pub(crate) paging: Paging,
    /// Its latest rates per second.
    pub(crate) rates: Rates,
    /// The report from which the next rates are reckoned, and when it came.
    pub(crate) counted: (Facts, Instant),
    /// Why policy has it page; `None`: it does not.
    pub(crate) paging_cause: Option<PagingCause>,
    /// It has waited in vain for a whole control period, and there is still nothing for it.
    pub(crate) waited: bool,
    /// Its part in page sharing.
    pub(crate) sharing: Membership,
    /// The last balloon target that it was told.
    pub(crate) balloon: Pages,
    pub(crate) liveness: Liveness,
    pub(crate) kernel: KernelAccount,
    /// A disk that grows.
    pub(crate) growth: Option<Growth>,
    /// How many times in a row its process was seen to hold more than it may.
    pub(crate) excess: u8,
    pub(crate) missing_jail: Vec<JailPart>,
    /// What its operator should know of how it runs, each in one line.
    pub(crate) remarks: Vec<String>,
}

/// What has happened to a VM since memory was last divided.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SinceDivision {
    /// Its guest has taken pages out of its balloon.
    pub(crate) took_back: bool,
    /// Pages that it was granted.
    pub(crate) given: Pages,
    /// Pages that it has paged out to serve its own faults.
    pub(crate) replaced: Pages,
    /// How long it has executed.
    pub(crate) executed: Duration,
}

/// What policy decided for a VM when memory was last divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) entitlement: Pages,
    /// What it may have beyond its entitlement: see
    /// [`Decision::lent`](plimsoll_policy::Decision::lent).
    pub(crate) lent: Pages,
    /// What its shares are worth: see [`Decision::worth`](plimsoll_policy::Decision::worth).
    pub(crate) worth: Pages,
    pub(crate) target: Pages,
    /// The most that it may be granted: its limit, or less where its pool has one.
    pub(crate) most: Pages,
}

impl Decided {
    /// Before the first decision: nothing but what the VM's `limit` allows.
    pub(super) fn within(limit: Pages) -> Self {
        let nothing = Pages::ZERO;
        Self { entitlement: nothing, lent: nothing, worth: nothing, target: limit, most: limit }
    }
}

/// A VMM's paging level: see [`ToVmm::Paging`](plimsoll_protocol::control::ToVmm::Paging).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) level: Option<Pages>,
    pub(crate) block: bool,
}

/// How far a run has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It waits until enough is free to charge it; it has no account in the ledger yet.
    Queued(Start),
    /// Its process is being set up.
    Launching(Start),
    /// It has its configuration and has not said that its guest runs.
    Booting(Start),
    /// Its guest runs.
    Running,
    /// An earlier daemon started it, and its VMM has not answered this one yet. It keeps its
    /// charge.
    Unreachable(Unreachable),
    /// Its guest was asked to shut down.
    Stopping,
    /// It will be gone soon: nothing more is given to it.
    Ending(Ending),
}

/// A start that is under way.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The request that is answered when the guest runs; `None`: it has been answered.
    pub(crate) waiter: Option<Waiter>,
    /// What to do to the inventory if the guest never runs.
    pub(crate) rollback: Rollback,
}

/// A request that waits for something, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: RequestId,
    pub(crate) until: Instant,
}

/// An end that is under way.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The start that it cuts short.
    pub(crate) start: Option<Start>,
    /// The reason that the VMM gave.
    pub(crate) told: Option<ExitReason>,
    /// The reason of the daemon; `None`: the VMM ends by itself.
    pub(crate) by: Option<EndedBy>,
    /// The daemon ends the process then, if it has not ended by itself.
    pub(crate) deadline: Option<Instant>,
    /// Requests that are answered when the process is gone.
    pub(crate) waiters: Vec<Waiter>,
}

/// Why the daemon has ended a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    Operator,
    /// The VMM broke a rule: which one.
    Breach(String),
}

/// Why a VMM that runs is unreachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// Since when this daemon has tried.
    pub(crate) since: Instant,
    /// In one line.
    pub(crate) why: String,
    /// An event has told it.
    pub(crate) told: bool,
    /// The inventory has the record of this very run.
    pub(crate) in_inventory: bool,
}

/// How a failed start leaves the inventory.
#[derive(Clone, Debug, Default)]
pub(crate) enum Rollback {
    /// As it is: the VM was known before.
    #[default]
    Nothing,
    /// The VM is forgotten: its creation has failed.
    Forget,
    /// The definition that was to be replaced is back.
    Restore(Box<Record>),
}

impl Run {
    pub(crate) fn new(id: RunId, vm: VmName, now: Instant, limit: Pages, sampling: SamplingConfig) -> Self {
        Self {
            id,
            vm,
            phase: Phase::Queued(Start::default()),
            pid: None,
            facts: Facts::default(),
            wanted: Pages::ZERO,
            beyond: Pages::ZERO,
            waiting_since: None,
            usage: Usage::new(sampling.period),
            need: Need::new(sampling.period),
            spare: Spare::default(),
            inflation: Inflation::default(),
            since_division: SinceDivision::default(),
            stall: StallAccount::new(&Facts::default(), Duration::ZERO, now),
            heartbeat: Heartbeat::default(),
            noise: Noise::new(now),
            decided: Decided::within(limit),
            leeway: Pages::ZERO,
            swap: Pages::ZERO,
            paging: Paging::default(),
            rates: Rates::default(),
            counted: (Facts::default(), now),
            paging_cause: None,
            waited: false,
            sharing: Membership::default(),
            balloon: Pages::ZERO,
            liveness: Liveness::new(now),
            kernel: KernelAccount::default(),
            growth: None,
            excess: 0,
            missing_jail: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Whether it has no process yet.
    pub(crate) fn is_without_process(&self) -> bool {
        matches!(self.phase, Phase::Queued(_) | Phase::Launching(_))
    }

    /// Whether it waits for memory to start in.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued(_))
    }

    /// Whether its guest has yet to run.
    pub(crate) fn is_starting(&self) -> bool {
        self.is_without_process() || matches!(self.phase, Phase::Booting(_))
    }

    /// Whether memory is still divided and given to it.
    pub(crate) fn takes_part(&self) -> bool {
        !matches!(self.phase, Phase::Ending(_) | Phase::Unreachable(_))
    }

    /// Whether messages of its VMM are ignored: it has no VMM yet, its VMM has sent its last
    /// message, or the daemon has ended it.
    pub(crate) fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Ending(ending) => ending.told.is_some() || ending.by.is_some(),
            _ => self.is_without_process(),
        }
    }

    /// The daemon's reason to end it.
    pub(crate) fn ended_by(&self) -> Option<&EndedBy> {
        match &self.phase {
            Phase::Ending(ending) => ending.by.as_ref(),
            _ => None,
        }
    }

    /// Whether its own pages can serve its faults.
    pub(crate) fn can_page(&self, largest_store: u8) -> bool {
        let somewhere = largest_store > 0 || self.swap > Pages::ZERO && !self.facts.swap_failed;
        somewhere && !self.facts.paging_stuck && !self.is_without_process()
    }

    /// It ends from now on, and gets nothing more. `note` adds to what is known of its end.
    pub(crate) fn ends(&mut self, note: impl FnOnce(&mut Ending)) {
        let mut ending = match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Ending(ending) => ending,
            Phase::Queued(start) | Phase::Launching(start) | Phase::Booting(start) => {
                Ending { start: Some(start), ..Ending::default() }
            }
            Phase::Running | Phase::Stopping | Phase::Unreachable(_) => Ending::default(),
        };
        note(&mut ending);
        self.phase = Phase::Ending(ending);
    }

    /// It ends by itself, by `deadline`. `told` is the reason that its VMM gave.
    pub(crate) fn ends_by(&mut self, deadline: Instant, told: Option<ExitReason>) {
        self.ends(|ending| {
            ending.deadline.get_or_insert(deadline);
            ending.told = told.or(ending.told.take());
        });
    }

    /// The start that is under way, or was when it began to end.
    pub(crate) fn start_mut(&mut self) -> Option<&mut Start> {
        match &mut self.phase {
            Phase::Queued(start) | Phase::Launching(start) | Phase::Booting(start) => Some(start),
            Phase::Ending(ending) => ending.start.as_mut(),
            _ => None,
        }
    }

    /// Requests whose time has run out. They do not wait any more.
    pub(crate) fn take_late(&mut self, now: Instant) -> Vec<RequestId> {
        let late = |waiter: &mut Waiter| waiter.until <= now;
        let mut waiters: Vec<Waiter> = Vec::new();
        waiters.extend(self.start_mut().and_then(|start| start.waiter.take_if(late)));
        if let Phase::Ending(ending) = &mut self.phase {
            waiters.extend(ending.waiters.extract_if(.., late));
        }
        waiters.into_iter().map(|waiter| waiter.request).collect()
    }

    /// All pages that it waits for.
    pub(crate) fn waits(&self) -> Pages {
        self.wanted.saturating_add(self.beyond)
    }

    /// Sets the pages that it waits for, and since when.
    pub(crate) fn wants(&mut self, pages: Pages, now: Instant) {
        self.wanted = pages;
        self.waiting_since =
            if pages == Pages::ZERO { None } else { Some(self.waiting_since.unwrap_or(now)) };
    }
}
