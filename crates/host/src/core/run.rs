use std::time::{Duration, Instant};

use plimsoll_policy::{Need, PagingCause, Spare};
use plimsoll_protocol::control::{ExitReason, Facts, SamplingConfig};
use plimsoll_protocol::definition::JailPart;
use plimsoll_units::Pages;

use super::membership::Membership;
use super::rates::Rates;
use super::silence::Heartbeat;
use super::stall_account::StallAccount;
use super::usage::Usage;
use super::{KernelAccount, RequestId, RunId};
use crate::inventory::Record;
use crate::liveness::Liveness;

/// A VM that has a process, or is about to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) phase: Phase,
    pub(crate) pid: Option<u32>,
    /// What its VMM said last, within what is possible.
    pub(crate) facts: Facts,
    /// Pages that it waits for, as far as they have not been granted since.
    pub(crate) wanted: Pages,
    /// Pages that it waits for beyond what its limit leaves: shown, never granted.
    pub(crate) beyond: Pages,
    /// Since when it waits, or last got leeway.
    pub(crate) waiting_since: Option<Instant>,
    pub(crate) usage: Usage,
    /// What it needs, by its samples and its waits.
    pub(crate) need: Need,
    /// What its guest can spare for its balloon.
    pub(crate) spare: Spare,
    /// Its guest has taken pages out of its balloon since memory was last divided.
    pub(crate) took_back: bool,
    /// What it was granted since then.
    pub(crate) given: Pages,
    /// Pages that it has paged out since then to serve its own faults.
    pub(crate) replaced: Pages,
    /// How long it has executed since then.
    pub(crate) executed: Duration,
    pub(crate) stall: StallAccount,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) entitlement: Pages,
    /// What it may have beyond its entitlement: see
    /// [`Decision::lent`](plimsoll_policy::Decision::lent).
    pub(crate) lent: Pages,
    pub(crate) target: Pages,
    /// The most that it may be granted as policy has it: its limit, or less where its pool has one.
    pub(crate) most: Pages,
    /// What it got as leeway: see [`Party::leeway`](plimsoll_policy::Party::leeway).
    pub(crate) leeway: Pages,
    /// Its swap space; zero: it has none.
    pub(crate) swap: Pages,
    /// What it was last told of paging.
    pub(crate) paging: Paging,
    /// What it lately did in a second.
    pub(crate) rates: Rates,
    /// The report from which the next rates are reckoned, and when it came.
    pub(crate) counted: (Facts, Instant),
    /// Why policy has it page, if it does.
    pub(crate) pages: Option<PagingCause>,
    /// It has waited in vain for a whole control period, and there is still nothing for it.
    pub(crate) waited: bool,
    /// With whom it shares pages.
    pub(crate) sharing: Membership,
    /// The balloon that it was last told to have.
    pub(crate) balloon: Pages,
    pub(crate) liveness: Liveness,
    pub(crate) kernel: KernelAccount,
    /// How many times in a row its process was seen to hold more than it may.
    pub(crate) excess: u8,
    pub(crate) missing_jail: Vec<JailPart>,
    /// The reason that its VMM gave for ending.
    pub(crate) told: Option<ExitReason>,
    /// Why the daemon ended it.
    pub(crate) ended: Option<Ended>,
    /// When its process is ended if it has not ended by itself.
    pub(crate) doom: Option<Instant>,
    /// Who waits for it to run, and until when.
    pub(crate) starter: Option<(RequestId, Instant)>,
    /// Who waits for it to be gone, and until when.
    pub(crate) killers: Vec<(RequestId, Instant)>,
    /// What to do to the inventory if it never comes to run.
    pub(crate) undo: Undo,
}

/// What a VMM is told of paging: see [`ToVmm::Paging`](plimsoll_protocol::control::ToVmm::Paging).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) level: Option<Pages>,
    pub(crate) block: bool,
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits until enough is free to charge it; it has no account in the ledger yet.
    Queued,
    /// Its process is being set up.
    Launching,
    /// It has its configuration and has not said that its guest runs.
    Booting,
    /// Its guest runs.
    Running,
    /// An earlier daemon started it, and this one cannot speak to its VMM yet. It keeps what it is
    /// charged.
    Unreachable(Unreachable),
    /// Its guest was asked to shut down.
    Stopping,
    /// It is about to be gone: nothing more is given to it.
    Dying,
}

/// Who ended a run, if not the VMM itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    ByOperator,
    /// The daemon, because of this.
    ForBreach(String),
}

/// Why the daemon cannot speak to a VMM that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// Since when this daemon has tried.
    pub(crate) since: Instant,
    /// In one line.
    pub(crate) why: String,
    /// Events have told of it.
    pub(crate) told: bool,
    /// The inventory has the record of this very run.
    pub(crate) in_inventory: bool,
}

/// How a failed start leaves the inventory.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// As it is: the VM was known before.
    Nothing,
    /// The VM is forgotten: its creation has failed.
    Forget,
    /// The definition that was to be replaced is back.
    Restore(Box<Record>),
}

impl Run {
    pub(crate) fn new(id: RunId, now: Instant, limit: Pages, sampling: SamplingConfig) -> Self {
        Self {
            id,
            phase: Phase::Queued,
            pid: None,
            facts: Facts::default(),
            wanted: Pages::ZERO,
            beyond: Pages::ZERO,
            waiting_since: None,
            usage: Usage::new(sampling.period),
            need: Need::new(sampling.period),
            spare: Spare::default(),
            took_back: false,
            given: Pages::ZERO,
            replaced: Pages::ZERO,
            executed: Duration::ZERO,
            stall: StallAccount::new(&Facts::default(), Duration::ZERO, now),
            heartbeat: Heartbeat::default(),
            entitlement: Pages::ZERO,
            lent: Pages::ZERO,
            target: limit,
            most: limit,
            leeway: Pages::ZERO,
            swap: Pages::ZERO,
            paging: Paging::default(),
            rates: Rates::default(),
            counted: (Facts::default(), now),
            pages: None,
            waited: false,
            sharing: Membership::default(),
            balloon: Pages::ZERO,
            liveness: Liveness::new(now),
            kernel: KernelAccount::default(),
            excess: 0,
            missing_jail: Vec::new(),
            told: None,
            ended: None,
            doom: None,
            starter: None,
            killers: Vec::new(),
            undo: Undo::Nothing,
        }
    }

    /// Whether it has no process yet.
    pub(crate) fn is_without_process(&self) -> bool {
        matches!(self.phase, Phase::Queued | Phase::Launching)
    }

    /// Whether memory is still to be divided and given to it.
    pub(crate) fn takes_part(&self) -> bool {
        !matches!(self.phase, Phase::Dying | Phase::Unreachable(_))
    }

    /// Whether its own pages can serve its faults.
    pub(crate) fn can_page(&self, largest_store: u8) -> bool {
        let somewhere = largest_store > 0 || self.swap > Pages::ZERO && !self.facts.swap_failed;
        somewhere && !self.facts.paging_stuck && !self.is_without_process()
    }

    /// It is about to end by itself: from now on it gets nothing, and at `doom` it is ended.
    pub(crate) fn ends_by(&mut self, doom: Instant) {
        self.phase = Phase::Dying;
        self.doom = Some(self.doom.unwrap_or(doom));
    }

    /// All pages that it waits for.
    pub(crate) fn waits(&self) -> Pages {
        self.wanted.saturating_add(self.beyond)
    }

    /// Sets what it waits for and since when.
    pub(crate) fn wants(&mut self, pages: Pages, now: Instant) {
        self.wanted = pages;
        self.waiting_since =
            if pages == Pages::ZERO { None } else { Some(self.waiting_since.unwrap_or(now)) };
    }
}
