use std::time::Duration;

use jiff::Timestamp;
use plimsoll_protocol::control::{Facts, ToVmm};
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_protocol::sharing::{DomainId, Sharing};
use plimsoll_protocol::{DomainName, VmName};
use plimsoll_units::Pages;

use super::devices;
use super::pools::place;
use super::run::{Phase, Run, Unreachable};
use super::stall_account::StallAccount;
use super::{Core, Effect, KernelAccount, RunId, Vm, limit, messages, overhead, size};
use crate::domains::{HeldReferences, Known, Order};
use crate::inventory::{Record, Unread};
use crate::ledger::Account;
use crate::outline::sketch;

/// A VM that an earlier daemon started and that still runs, before its VMM has answered.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(crate) vm: VmName,
    /// `None`: its process is not known yet.
    pub(crate) pid: Option<u32>,
    /// `None`: unknown.
    pub(crate) started: Option<Timestamp>,
    /// The part that can be read; `None`: none of it.
    pub(crate) definition: Option<VmDefinition>,
    /// The grant that the earlier daemon wrote down last, if it could be read.
    pub(crate) recorded: Option<Pages>,
    /// Its swap space.
    pub(crate) swap: Pages,
    pub(crate) kernel: KernelAccount,
    /// Domains whose frames it may map; `None`: unknown.
    pub(crate) domains: Option<Vec<Known>>,
    /// Domains that it was in before those: it can still read their frames.
    pub(crate) former: Vec<Known>,
    /// Why its VMM is unreachable, in one line.
    pub(crate) why: String,
}

/// The same VM, once its run record has been read in full and its VMM has answered.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) definition: VmDefinition,
    pub(crate) started: Timestamp,
    pub(crate) pid: u32,
    pub(crate) missing_jail: Vec<JailPart>,
    pub(crate) remarks: Vec<String>,
    /// What the VMM says.
    pub(crate) facts: Facts,
    pub(crate) recorded: Option<Pages>,
    pub(crate) swap: Pages,
    pub(crate) kernel: KernelAccount,
    pub(crate) domains: Vec<Known>,
    pub(crate) former: Vec<Known>,
    /// The frames that it claims to map.
    pub(crate) references: Option<HeldReferences>,
}

/// VMs that an earlier daemon started.
///
/// Each of them is charged and has its name from the start, reachable or not. While it is
/// [`Phase::Unreachable`] it keeps its memory, and gets no more. It takes part in everything from
/// the moment at which its VMM answers.
impl Core {
    /// Takes up a VM that runs. Its charge is the recorded grant, and at least what the kernel
    /// shows.
    pub(crate) fn discover(&mut self, found: Discovered) -> RunId {
        let (name, started) = (&found.vm, found.started);
        let known = self.vm(name);
        let same =
            known.filter(|vm| started.is_some() && vm.record.started == started && vm.unread.is_none());
        let readable = found.domains.is_some();
        let in_inventory = same.is_some();
        let mut unread = known.and_then(|vm| vm.unread.clone());
        let known_start = known.and_then(|vm| vm.record.started);
        let images = known.map(|vm| vm.record.images.clone()).unwrap_or_default();
        let written = known.map(|vm| vm.record.definition.clone());
        let definition = match found.definition {
            Some(definition) if readable && !in_inventory => definition,
            Some(sketch) if unread.is_some() || known.is_none() => sketch,
            _ => written.unwrap_or_else(|| sketch(name, &serde_json::Value::Null)),
        };
        if known.is_none() && !readable {
            let why = "its definition is not known: its run record cannot be read".to_owned();
            unread = Some(Unread { why, replaceable: true });
        }
        let lost_pool = known.and_then(|vm| vm.record.lost_pool.clone());
        let boot_id = self.settings.boot_id.clone();
        let started = started.or(known_start);
        let mut record = Record { definition, started, exit: None, boot_id, lost_pool, images };
        place(&mut record, &self.pools);
        let definition = &record.definition;
        let recorded = found.recorded.unwrap_or_default().min(size(definition));
        let account = account(definition, recorded, &found.kernel);
        self.last_run += 1;
        let id = RunId(self.last_run);
        if let Err(e) = self.ledger.adopt(id, account) {
            tracing::error!(vm = %name, "its account cannot be opened: {e}");
        }
        let mut run = Run::new(id, name.clone(), self.clock.now, limit(definition), self.settings.sampling);
        run.phase = Phase::Unreachable(Unreachable {
            since: self.clock.now,
            why: found.why,
            told: false,
            in_inventory,
        });
        run.pid = found.pid;
        run.swap = found.swap;
        run.kernel = found.kernel;
        self.runs.insert(id, Box::new(run));
        self.vms.insert(name.clone(), Vm { record, unread, run: Some(id) });
        let former = self.left_by(id, found.domains.iter().flatten().chain(&found.former));
        let maps = found.domains.map(|domains| domains.iter().map(|domain| domain.id).collect());
        self.effect(Effect::Order(Order::Discovered { run: id, former, maps }));
        self.urgent = true;
        id
    }

    /// The VMM of a VM that was discovered has answered.
    ///
    /// Its charge is its claim, up to the recorded grant (or its size, without a record), and at
    /// least what the kernel shows.
    pub(super) fn reached(&mut self, id: RunId, adopted: Adopted) {
        let Some(name) = self.name_of(id) else { return };
        let Some(vm) = self.vms.get_mut(&name) else { return };
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.pid = Some(adopted.pid);
        let Phase::Unreachable(unreachable) = &run.phase else {
            // It is being killed.
            return;
        };
        let silent_for =
            unreachable.told.then(|| self.clock.now.saturating_duration_since(unreachable.since));
        let in_inventory = unreachable.in_inventory;
        // If the inventory has the record of this run, it has later changes too.
        if !in_inventory {
            vm.record.definition = adopted.definition;
            vm.record.started = Some(adopted.started);
            vm.unread.take_if(|unread| unread.replaceable);
        }
        place(&mut vm.record, &self.pools);
        let definition = &vm.record.definition;
        let bound = adopted.recorded.unwrap_or(size(definition)).min(size(definition));
        let account = account(definition, adopted.facts.grant.min(bound), &adopted.kernel);
        let unknown = account.grant.saturating_sub(adopted.facts.grant);
        if let Err(e) = self.ledger.correct(id, account) {
            tracing::error!(vm = %name, "its account cannot be corrected: {e}");
        }
        run.phase = Phase::Running;
        run.missing_jail = adopted.missing_jail;
        run.remarks = adopted.remarks;
        run.swap = adopted.swap;
        run.kernel = adopted.kernel;
        run.facts = messages::possible(adopted.facts, definition, account.grant);
        run.counted = (run.facts, self.clock.now);
        let age = self.clock.at.duration_since(adopted.started).unsigned_abs();
        run.stall = StallAccount::new(&run.facts, age, self.clock.now);
        (run.decided.target, run.decided.most) = (limit(definition), limit(definition));
        run.balloon = run.facts.balloon_target;
        run.usage.observe(&run.facts.sampling);
        run.wants(run.facts.wanted, self.clock.now);
        let size = size(definition);
        let after = silent_for.map_or_else(String::new, |time| format!(" after {} s", time.as_secs()));
        self.event(Some(&name), format!("is adopted{after}, with {} granted", account.grant.bytes()));
        let former = self.left_by(id, adopted.domains.iter().chain(&adopted.former));
        if let Some(references) = adopted.references {
            self.recover(id, size, references);
        }
        self.effect(Effect::Order(Order::Answered { run: id, former }));
        self.share(id, Pages::ZERO);
        // An earlier daemon may have ended between a change and its record.
        for order in self.definition_of(id).map(devices::all).unwrap_or_default() {
            self.effect(Effect::Send(id, ToVmm::Device(order)));
        }
        // The record of its grant may be lost, or name a grant that the VMM never got.
        self.effect(if unknown > Pages::ZERO {
            // It is told what it is charged beyond its claim. What only the ledger knows would be
            // taken for a grant that the VMM has not read yet: that answers what its faults wait
            // for, report after report.
            Effect::Grant { run: id, pages: unknown, total: account.grant }
        } else {
            Effect::Returned { run: id, total: account.grant }
        });
        if !in_inventory {
            self.save(&name, Vec::new());
        }
        self.urgent = true;
    }

    /// Has the plane take over the frames that a VM of `size` holds.
    fn recover(&mut self, id: RunId, size: Pages, references: HeldReferences) {
        if let Some(run) = self.run_mut(id) {
            run.sharing.recovering = true;
        }
        self.recovering += 1;
        self.effect(Effect::Order(Order::Recover { run: id, size, references: Box::new(references) }));
    }

    /// Returns those of a VM's known domains that its definition no longer names.
    fn left_by<'a>(&self, id: RunId, told: impl Iterator<Item = &'a Known>) -> Vec<DomainId> {
        let sharing = self.definition_of(id).map(|definition| &definition.memory.sharing);
        let stays = |name: &DomainName| matches!(sharing, Some(Sharing::With(domain)) if domain == name);
        told.filter(|known| known.name.as_ref().is_some_and(|name| !stays(name)))
            .map(|known| known.id)
            .collect()
    }

    /// A VM that was discovered is unreachable, and why. Events tell each reason once.
    pub(super) fn unreachable(&mut self, id: RunId, why: String) {
        let Some(name) = self.name_of(id) else { return };
        let Some(run) = self.run_mut(id) else { return };
        let Phase::Unreachable(unreachable) = &mut run.phase else { return };
        if unreachable.told && unreachable.why == why {
            return;
        }
        (unreachable.told, unreachable.why) = (true, why.clone());
        self.event(
            Some(&name),
            format!("runs, but is unreachable: {why}; it keeps its memory, and plimsolld keeps trying"),
        );
    }

    /// The process of a VM that was discovered is known from now on.
    pub(super) fn identified(&mut self, id: RunId, pid: u32) {
        if let Some(run) = self.run_mut(id) {
            run.pid = Some(pid);
        }
    }

    /// Raises the charge of an unreachable VM to what the kernel shows.
    pub(super) fn charge_unreachable(&mut self, id: RunId) {
        let unreachable = |run: &&Run| matches!(run.phase, Phase::Unreachable(_));
        let (Some(run), Some(definition)) = (self.run(id).filter(unreachable), self.definition_of(id)) else {
            return;
        };
        let before = self.ledger.account(id);
        let now = account(definition, before.grant, &run.kernel);
        if now.grant > before.grant
            && let Err(e) = self.ledger.correct(id, Account { grant: now.grant, ..before })
        {
            tracing::error!(run = id.0, "its account cannot be corrected: {e}");
        }
    }

    /// The note for users about an unreachable VM.
    pub(super) fn unreachable_note(&self, run: &Run) -> Option<String> {
        let Phase::Unreachable(Unreachable { since, why, .. }) = &run.phase else { return None };
        let tried: Duration = self.clock.now.saturating_duration_since(*since);
        Some(format!("unreachable for {} s: {why}; retrying", tried.as_secs()))
    }
}

/// Returns the charge of a VM with a known grant of `grant` and the memory that the kernel shows.
fn account(definition: &VmDefinition, grant: Pages, kernel: &KernelAccount) -> Account {
    let overhead = overhead(definition);
    let process = Pages::ceil(kernel.process.anonymous).saturating_sub(overhead);
    Account { grant: grant.max(Pages::ceil(kernel.ram)).max(process), overhead, ..Account::default() }
}
