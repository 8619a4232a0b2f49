use plimsoll_policy::{Claim, Grants, Refusal, Stage, admit};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::ToVmm;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Pages;

use super::pools::place;
use super::run::{EndedBy, Ending, Phase, Rollback, Run, Start, Waiter};
use super::{
    Answer, Core, Effect, Failure, FailureKind, LAST_GRACE, REQUEST_TIMEOUT, RequestId, RunId, Started, Vm,
    limit, overhead, reservation,
};
use crate::domains::Order;
use crate::images;
use crate::inventory::Record;
use crate::ledger::Account;

/// Grant to begin with: a Debian kernel and its initial ram disk take 40 to 60 MiB before the
/// guest's first line. Less costs messages while they are loaded, more takes memory that a small
/// guest may never touch.
const INITIAL_GRANT: Pages = Pages((64 << 20) / plimsoll_units::PAGE_SIZE);

/// A VM's process from its admission to its end.
impl Core {
    /// Admits a VM that is off, and launches it as soon as enough is free. `request` is answered
    /// when its guest runs or cannot.
    pub(super) fn start(
        &mut self,
        name: &VmName,
        request: RequestId,
        rollback: Rollback,
    ) -> Result<(), Failure> {
        let Some(vm) = self.vm(name) else {
            return Err(Failure::new(FailureKind::Unknown, format!("there is no VM {name}")));
        };
        let definition = vm.record.definition.clone();
        self.admit_start(&definition)?;
        self.last_run += 1;
        let id = RunId(self.last_run);
        let mut run = Run::new(id, name.clone(), self.clock.now, limit(&definition), self.settings.sampling);
        let waiter = Some(Waiter { request, until: self.clock.now + REQUEST_TIMEOUT });
        run.phase = Phase::Queued(Start { waiter, rollback });
        let (at, boot_id) = (self.clock.at, self.settings.boot_id.clone());
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.run = Some(id);
        self.runs.insert(id, Box::new(run));
        (vm.record.started, vm.record.exit) = (Some(at), None);
        vm.record.boot_id = boot_id;
        self.launch_queued();
        if self.run(id).is_some_and(Run::is_queued) {
            self.event(Some(name), "waits until other VMs have given back the memory to start it");
        }
        self.urgent = true;
        Ok(())
    }

    /// Charges and launches queued VMs in order, as far as free memory allows.
    pub(super) fn launch_queued(&mut self) {
        let queued = self.queued();
        if queued.is_empty() || self.recovering > 0 {
            return;
        }
        let mut round = self.round();
        // A promise to a VM further back does not hold up one before it.
        round.leave_out_queued();
        let mut claims = self.all_claims();
        for (id, definition) in queued {
            let Some(i) = round.index(id) else { continue };
            let overhead = overhead(&definition);
            // Of a crowd that waits few can start. Only for those the claims of all are added up.
            let is_free = reservation(&definition) + overhead <= round.grants.open(i);
            match is_free.then(|| self.affordable(&round.grants, i, &definition, &mut claims)) {
                Some(Ok(account)) => {
                    self.launch(id, &definition.name, account);
                    round.grants.start(i, account.overhead, account.grant);
                }
                _ => round.grants.set_stage(i, Stage::Queued { overhead }),
            }
        }
    }

    /// VMs that wait to start, in their order.
    fn queued(&self) -> Vec<(RunId, VmDefinition)> {
        let queued = self.running().filter(|(_, run)| run.is_queued());
        let mut queued: Vec<_> = queued.map(|(definition, run)| (run.id, definition.clone())).collect();
        queued.sort_unstable_by_key(|(id, _)| *id);
        queued
    }

    /// Returns the first charge of the VM at `i` in the round and in the `claims` of all, if that
    /// much is free.
    fn affordable(
        &self,
        grants: &Grants,
        i: usize,
        definition: &VmDefinition,
        claims: &mut [Claim],
    ) -> Result<Account, Refusal> {
        let (reservation, overhead) = (reservation(definition), overhead(definition));
        let open = grants.open(i);
        admit(reservation, overhead, self.unreserved_beside(claims, i, definition), open)?;
        // Beyond its reservation it gets as much as leaves the host in state high.
        let spare = open.saturating_sub(overhead).saturating_sub(self.settings.thresholds.clear);
        let room = spare.min(grants.room_in_pools(i));
        let grant = INITIAL_GRANT.min(limit(definition)).min(room.max(reservation));
        Ok(Account { grant, overhead, ..Account::default() })
    }

    fn launch(&mut self, id: RunId, name: &VmName, account: Account) {
        if let Err(e) = self.ledger.open(id, account) {
            tracing::error!(vm = %name, "its account cannot be opened: {e}");
            return;
        }
        let Some(record) = self.vm(name).map(|vm| Box::new(vm.record.clone())) else { return };
        if let Some(run) = self.run_mut(id) {
            let start = run.start_mut().map(std::mem::take);
            run.phase = Phase::Launching(start.unwrap_or_default());
        }
        self.effect(Effect::Launch { run: id, record, grant: account.grant });
        let text = format!("starts with {} and {} overhead", account.grant.bytes(), account.overhead.bytes());
        self.event(Some(name), text);
    }

    /// A launch has ended.
    pub(super) fn launched(&mut self, id: RunId, result: Result<Started, Failure>) {
        if let Ok(started) = &result {
            self.remember_images(id, started);
        }
        let Some(run) = self.run_mut(id) else { return };
        match result {
            Ok(started) => {
                run.pid = Some(started.pid);
                run.missing_jail = started.missing_jail;
                run.remarks.clone_from(&started.remarks);
                run.swap = started.swap;
                if let Phase::Launching(start) = &mut run.phase {
                    run.phase = Phase::Booting(std::mem::take(start));
                    let balloon = run.balloon;
                    self.effect(Effect::Send(id, ToVmm::BalloonTarget(balloon)));
                    self.share(id, Pages::ZERO);
                    let name = self.name_of(id);
                    for remark in started.remarks {
                        self.event(name.as_ref(), remark);
                    }
                } else {
                    // It was killed meanwhile.
                    self.effect(Effect::Kill(id));
                }
            }
            Err(failure) => self.close_run(id, failure.kind, &failure.text, None),
        }
    }

    /// What its images said when it was started counts from then on.
    fn remember_images(&mut self, id: RunId, started: &Started) {
        let Some(name) = self.name_of(id) else { return };
        let known = self.vms.get_mut(&name).map(|vm| &mut vm.record.images);
        if known.is_some_and(|known| images::remember(known, started.images.clone())) {
            self.save(&name, Vec::new());
        }
    }

    /// A VMM closed the connection: it is ending.
    pub(super) fn closed(&mut self, id: RunId) {
        let deadline = self.clock.now + LAST_GRACE;
        if let Some(run) = self.run_mut(id) {
            run.ends_by(deadline, None);
        }
    }

    /// Ends runs that should have ended by themselves.
    pub(super) fn end_the_overdue(&mut self) {
        let now = self.clock.now;
        let overdue = |run: &Run| match &run.phase {
            Phase::Ending(Ending { by: None, deadline: Some(deadline), .. }) => *deadline <= now,
            _ => false,
        };
        let overdue: Vec<RunId> =
            self.running().filter(|(_, run)| overdue(run)).map(|(_, run)| run.id).collect();
        for id in overdue {
            self.breach(id, "it closed its connection to the daemon and did not end");
        }
    }

    /// Ends a VMM that cannot be trusted any more. Its charge stays until its process is gone.
    pub(super) fn breach(&mut self, id: RunId, why: &str) {
        if self.run(id).is_some_and(|run| run.ended_by().is_none()) {
            let name = self.name_of(id);
            self.event(name.as_ref(), format!("is ended by the daemon: {why}"));
            self.end(id, EndedBy::Breach(why.to_owned()), None);
        }
    }

    /// Ends a run at once, for the reason given unless there was one before. `waiter` is answered
    /// when the process is gone.
    pub(super) fn end(&mut self, id: RunId, by: EndedBy, waiter: Option<Waiter>) {
        let Some(run) = self.run_mut(id) else { return };
        let queued = run.is_queued();
        run.ends(|ending| {
            ending.waiters.extend(waiter);
            ending.by.get_or_insert(by);
        });
        let operator = run.ended_by() == Some(&EndedBy::Operator);
        if run.pid.is_some() {
            self.effect(Effect::Kill(id));
        } else if queued && operator {
            let exit = Exit::KilledByOperator;
            self.close_run(id, FailureKind::Conflict, &exit.to_string(), Some(exit.clone()));
        }
    }

    /// A process is gone.
    pub(super) fn exited(&mut self, id: RunId, how: String) {
        let Some(run) = self.run(id) else { return };
        let exit = match &run.phase {
            Phase::Ending(Ending { told: Some(reason), .. }) => Exit::Told(reason.clone()),
            Phase::Ending(Ending { by: Some(EndedBy::Operator), .. }) => Exit::KilledByOperator,
            Phase::Ending(Ending { by: Some(EndedBy::Breach(why)), .. }) => {
                Exit::Vanished(format!("the daemon ended it: {why}"))
            }
            _ => Exit::Vanished(how),
        };
        let text = exit.to_string();
        self.close_run(id, FailureKind::Unfit, &text, Some(exit));
    }

    /// Ends a run's account. A run whose guest never ran undoes what its start did to the
    /// inventory.
    fn close_run(&mut self, id: RunId, kind: FailureKind, text: &str, exit: Option<Exit>) {
        self.effect(Effect::Order(Order::Ended(id)));
        let Some(mut run) = self.runs.remove(&id) else { return };
        let name = run.vm.clone();
        if let Some(vm) = self.vms.get_mut(&name) {
            vm.run = None;
        }
        if let Some(growth) = run.growth.take() {
            self.refuse_growth(&name, &growth, "its VM has ended");
        }
        // A run that was still waiting to start has no account.
        let freed = self.ledger.close(id).map_or(Pages::ZERO, |a| a.grant + a.overhead);
        self.event(Some(&name), format!("is off: {text}; {} are free again", freed.bytes()));
        self.effect(Effect::Clear(id, name.clone()));
        let operator = run.ended_by() == Some(&EndedBy::Operator);
        let starting = run.is_starting();
        let Start { waiter, rollback } = run.start_mut().map(std::mem::take).unwrap_or_default();
        let failed_start = !operator && (starting || waiter.is_some());
        let record = match rollback {
            Rollback::Forget if failed_start => None,
            Rollback::Restore(mut record) if failed_start => {
                // Its pool may have been removed meanwhile.
                place(&mut record, &self.pools);
                Some(*record)
            }
            _ => self.vm(&name).map(|vm| {
                let failed = || match operator {
                    true => Exit::KilledByOperator,
                    false => Exit::NotStarted(text.to_owned()),
                };
                Record { exit: Some(exit.unwrap_or_else(failed)), ..vm.record.clone() }
            }),
        };
        match (&record, self.vms.get_mut(&name)) {
            (Some(record), Some(vm)) => vm.record = record.clone(),
            _ => drop(self.vms.remove(&name)),
        }
        let kind = if operator { FailureKind::Conflict } else { kind };
        let failed = Err(Failure::new(kind, format!("VM {name} did not start: {text}")));
        let for_start = waiter.map(|waiter| (waiter.request, failed));
        let waiters = match run.phase {
            Phase::Ending(ending) => ending.waiters,
            _ => Vec::new(),
        };
        let for_end = waiters.into_iter().map(|waiter| (waiter.request, self.status_answer(&name)));
        let answers = for_start.into_iter().chain(for_end).collect();
        match record {
            Some(_) => self.save(&name, answers),
            None => self.effect(Effect::Forget(name, answers)),
        }
        self.returned = true;
        self.urgent = true;
    }

    /// Answers requests whose time has run out.
    pub(super) fn answer_the_late(&mut self) {
        let now = self.clock.now;
        self.refuse_the_queued();
        let mut late: Vec<(RequestId, VmName)> = Vec::new();
        for run in self.runs.values_mut() {
            late.extend(run.take_late(now).into_iter().map(|request| (request, run.vm.clone())));
        }
        for (request, name) in late {
            let answer = self.status_answer(&name);
            self.effect(Effect::Answer(request, answer));
        }
    }

    /// Refuses VMs that have waited to start for too long.
    fn refuse_the_queued(&mut self) {
        let now = self.clock.now;
        let late = |run: &Run| match &run.phase {
            Phase::Queued(start) => start.waiter.is_none_or(|waiter| waiter.until <= now),
            _ => false,
        };
        if !self.running().any(|(_, run)| late(run)) {
            return;
        }
        let mut round = self.round();
        round.leave_out_queued();
        let mut claims = self.all_claims();
        let mut refused: Vec<(RunId, String)> = Vec::new();
        for (id, definition) in self.queued() {
            let Some(i) = round.index(id) else { continue };
            if self.run(id).is_some_and(late)
                && let Err(refusal) = self.affordable(&round.grants, i, &definition, &mut claims)
            {
                refused.push((id, refusal.to_string()));
            }
            // The next one waits behind it.
            round.grants.set_stage(i, Stage::Queued { overhead: overhead(&definition) });
        }
        for (id, why) in refused {
            self.close_run(id, FailureKind::NoMemory, &why, None);
        }
    }

    /// Notes that a VM's process was gone when the daemon came back, and how it ended.
    pub(crate) fn vanished(&mut self, name: &VmName, exit: Exit) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let text = format!("is off: {exit}");
        vm.record.exit = Some(exit);
        self.event(Some(name), text);
        self.save(name, Vec::new());
    }

    /// All VMs that run have been taken up. VMs that had been started and left no run directory
    /// ended with the host, unless it is still the same boot: then their run directories were
    /// removed.
    pub(crate) fn end_the_lost(&mut self) {
        let here = &self.settings.boot_id;
        let lost = |(name, vm): (&VmName, &Vm)| {
            let record = &vm.record;
            let over =
                vm.run.is_some() || vm.unread.is_some() || record.started.is_none() || record.exit.is_some();
            let same_boot = record.boot_id.is_some() && record.boot_id == *here;
            let exit = match same_boot {
                true => Exit::Vanished("its run directory was gone when the daemon came back".to_owned()),
                false => Exit::EndedWithHost,
            };
            (!over).then(|| (name.clone(), exit))
        };
        let lost: Vec<(VmName, Exit)> = self.vms.iter().filter_map(lost).collect();
        lost.into_iter().for_each(|(name, exit)| self.vanished(&name, exit));
    }

    /// Presses a VM's power button.
    pub(super) fn press_power_button(&mut self, id: RunId) {
        if let Some(run) = self.run_mut(id) {
            run.phase = Phase::Stopping;
        }
        self.effect(Effect::Send(id, ToVmm::PowerButton));
    }

    /// The answer that a request to start a VM gets. What was started may not be on disk.
    pub(super) fn started_answer(&self, name: &VmName) -> Result<Answer, Failure> {
        let answer = self.status_answer(name)?;
        Ok(match self.unsaved.get(&Some(name.clone())) {
            Some(why) => Answer::Unsaved(Box::new(answer), why.clone()),
            None => answer,
        })
    }

    /// The answer that a request about a VM gets.
    pub(super) fn status_answer(&self, name: &VmName) -> Result<Answer, Failure> {
        self.must_status(name).map(|status| Answer::Vm(Box::new(status)))
    }
}
