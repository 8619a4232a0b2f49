use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::change::VmChange;
use plimsoll_protocol::control::{Facts, ToVmm};
use plimsoll_protocol::definition::{DefinitionError, VmDefinition};
use plimsoll_protocol::status::VmStatus;
use plimsoll_units::Pages;
use plimsoll_words::devices as words;

use super::devices;
use super::run::{EndedBy, Phase, Rollback, Unreachable, Waiter};
use super::{Answer, Core, Effect, Failure, FailureKind, REQUEST_TIMEOUT, Request, RequestId, RunId, Vm};
use crate::images;
use crate::inventory::Record;

/// Most requests that wait for the end of one VM; more would only be a client in a loop.
const MOST_WAITERS: usize = 64;

/// Requests of users. `Ok(None)`: the answer comes later.
impl Core {
    pub(super) fn request(&mut self, id: RequestId, request: Request) {
        tracing::debug!(request = id.0, "{request:?}");
        let answer = match request {
            Request::Host => Ok(Some(Answer::Host(Box::new(self.host_status(&self.pool_table()))))),
            Request::List => Ok(Some(Answer::Vms(self.all_status()))),
            Request::Sharing => Ok(Some(Answer::Sharing(self.all_domains()))),
            Request::Events(after) => Ok(Some(Answer::Events(self.events.after(after)))),
            Request::Overview => Ok(Some(Answer::Overview(Box::new(self.overview())))),
            Request::Get(name) => self.status_answer(&name).map(Some),
            Request::Definition(name) => self.definition(&name).map(Some),
            Request::Create(definition) => self.create(id, *definition).map(|()| None),
            Request::Define(definition) => self.define(id, *definition).map(|()| None),
            Request::Redefine(name, definition, versions) => {
                self.redefine(id, &name, *definition, versions.as_deref()).map(|()| None)
            }
            Request::Rename(name, new) => self.rename(id, &name, &new).map(|()| None),
            Request::Change(name, change) => self.change(id, &name, &change).map(|()| None),
            Request::Forget(name) => self.forget(id, &name).map(|()| None),
            Request::Start(name) => self.start_known(id, &name).map(|()| None),
            Request::Stop(name) => self.stop(&name).map(Some),
            Request::Pause(name) => self.pause(&name).map(Some),
            Request::Resume(name) => self.resume(&name).map(Some),
            Request::Reset(name) => self.reset(&name).map(Some),
            Request::ResizeDisk(name, resize) => self.resize_disk(id, &name, resize).map(|()| None),
            Request::Kill(name) => self.kill(id, &name).map(|()| None),
            Request::History { vm, after, limit } => self.history(vm.as_ref(), after, limit).map(Some),
            Request::Explain => Ok(Some(Answer::Explanation(Box::new(self.explain_host())))),
            Request::ExplainVm(name) => self.explain_vm(&name).map(Some),
            Request::Pools => Ok(Some(Answer::Pools(self.all_pools(&self.pool_table())))),
            Request::Pool(name) => self.pool_answer(&name).map(Some),
            Request::CreatePool(definition) => self.create_pool(id, definition).map(|()| None),
            Request::ChangePool(name, change) => self.change_pool(id, &name, &change).map(|()| None),
            Request::RemovePool(name) => self.remove_pool(id, &name).map(|()| None),
        };
        match answer {
            Ok(Some(answer)) => self.effect(Effect::Answer(id, Ok(answer))),
            Ok(None) => {}
            Err(failure) => {
                tracing::info!("refused: {}", failure.text);
                self.effect(Effect::Answer(id, Err(failure)));
            }
        }
    }

    /// Defines a VM, in place of one of the same name that is off, and starts it. If it does not
    /// start, nothing has changed.
    fn create(&mut self, id: RequestId, definition: VmDefinition) -> Result<(), Failure> {
        self.must_be_sound(&definition)?;
        let name = definition.name.clone();
        self.must_be_readable(&name)?;
        let rollback = match self.vms.get(&name) {
            Some(Vm { run: Some(_), .. }) => {
                let text = format!("VM {name} is on: stop it first, or choose another name");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            Some(vm) => Rollback::Restore(Box::new(vm.record.clone())),
            None => Rollback::Forget,
        };
        let before = rollback.clone();
        let images = self.vms.get(&name).map(|vm| images::of(&definition, &vm.record.images));
        let record = Record { images: images.unwrap_or_default(), ..Record::new(definition) };
        self.vms.insert(name.clone(), Vm::off(record));
        self.start(&name, id, rollback).inspect_err(|_| match before {
            Rollback::Restore(record) => {
                self.vms.insert(name.clone(), Vm::off(*record));
            }
            _ => {
                self.vms.remove(&name);
            }
        })
    }

    fn start_known(&mut self, id: RequestId, name: &VmName) -> Result<(), Failure> {
        let conflict = |text: String| Err(Failure::new(FailureKind::Conflict, text));
        self.must_be_readable(name)?;
        self.must_know(name)?;
        match self.run_of(name).map(|run| &run.phase) {
            Some(Phase::Ending(_)) => conflict(format!("VM {name} is ending: try again when it is off")),
            Some(_) => conflict(format!("VM {name} is on already")),
            None => self.start(name, id, Rollback::Nothing),
        }
    }

    fn stop(&mut self, name: &VmName) -> Result<Answer, Failure> {
        let run = self.must_run(name)?;
        let conflict = |text: String| Err(Failure::new(FailureKind::Conflict, text));
        match self.run(run).map(|run| &run.phase) {
            Some(Phase::Unreachable(Unreachable { why, .. })) => {
                return conflict(format!(
                    "VM {name} cannot be stopped: {why}; plimsolld keeps trying: try again, or kill it"
                ));
            }
            Some(Phase::Queued(_) | Phase::Launching(_) | Phase::Booting(_)) => {
                return conflict(format!("VM {name} is being started: try again, or kill it"));
            }
            Some(Phase::Running | Phase::Stopping) => {
                self.must_not_be_paused(name, run)?;
                self.press_power_button(run);
                self.event(Some(name), "is asked to shut down");
            }
            _ => {}
        }
        self.status_answer(name)
    }

    fn kill(&mut self, id: RequestId, name: &VmName) -> Result<(), Failure> {
        let run = self.must_run(name)?;
        let until = self.clock.now + REQUEST_TIMEOUT;
        if let Some(run) = self.run(run) {
            if matches!(&run.phase, Phase::Ending(ending) if ending.waiters.len() >= MOST_WAITERS) {
                let text = format!("{MOST_WAITERS} others wait for the end of VM {name} already");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            if let (Phase::Unreachable(Unreachable { why, .. }), None) = (&run.phase, run.pid) {
                let text = format!("VM {name} cannot be killed: its process is not known: {why}");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
        }
        self.event(Some(name), "is killed by the operator");
        self.end(run, EndedBy::Operator, Some(Waiter { request: id, until }));
        Ok(())
    }

    pub(super) fn change(&mut self, id: RequestId, name: &VmName, change: &VmChange) -> Result<(), Failure> {
        self.must_be_readable(name)?;
        let vm = self.must_know(name)?;
        let invalid = |e: DefinitionError| Failure::new(FailureKind::Invalid, format!("VM {name}: {e}"));
        vm.record.definition.check_devices(change).map_err(invalid)?;
        let definition = vm.record.definition.changed(change);
        let moves = definition.memory.sharing != vm.record.definition.memory.sharing;
        if let Some(pool) = &change.pool {
            self.must_be_place(pool)?;
        }
        definition.check().map_err(invalid)?;
        if let Some(run) = self.run_of(name) {
            if let Phase::Unreachable(Unreachable { why, .. }) = &run.phase {
                let text = format!("VM {name} cannot be changed: {why}; plimsolld keeps trying: try again");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            if run.is_starting() {
                let text = format!("VM {name} is being started: try again");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            if moves && run.sharing.is_moving() {
                let text =
                    format!("VM {name} is still leaving its last sharing domain: try again in a few seconds");
                return Err(Failure::new(FailureKind::Conflict, text));
            }
            self.must_cover(&definition, run.swap)?;
            self.admit_change(&vm.record.definition, &definition, run.id)?;
        }
        let text = news(&vm.record.definition, &definition);
        let orders = devices::changes(&vm.record.definition, &definition);
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.record.definition = definition;
        vm.record.lost_pool.take_if(|_| change.pool.is_some());
        let run = vm.run;
        if let Some(run) = run.filter(|_| moves) {
            self.share(run, Pages::ZERO);
        }
        if let Some(run) = run {
            let send = |order| Effect::Send(run, ToVmm::Device(order));
            self.effects.extend(orders.into_iter().map(send));
        }
        let above =
            run.and_then(|run| self.above_limit_note(&self.vm(name)?.record.definition, self.run(run)?));
        self.event(Some(name), text + &above.map_or_else(String::new, |above| format!("; {above}")));
        // The answer shows what follows from the change.
        self.control();
        let answer = self.status_answer(name)?;
        self.save(name, vec![(id, Ok(answer))]);
        Ok(())
    }

    /// Swap space is set aside when a VM starts, and does not grow.
    fn must_cover(&self, definition: &VmDefinition, space: Pages) -> Result<(), Failure> {
        let least = definition.size.saturating_sub(space.bytes());
        if space == Pages::ZERO || definition.reservation >= least {
            return Ok(());
        }
        let text = format!(
            "VM {} cannot have reservation {} while it runs: its swap space of {} was set aside for reservation {least}: stop it first",
            definition.name,
            definition.reservation,
            space.bytes()
        );
        Err(Failure::new(FailureKind::Conflict, text))
    }

    fn forget(&mut self, id: RequestId, name: &VmName) -> Result<(), Failure> {
        if self.must_know(name)?.run.is_some() {
            let text = format!("VM {name} is on: stop or kill it first");
            return Err(Failure::new(FailureKind::Conflict, text));
        }
        self.vms.remove(name);
        self.event(Some(name), "is forgotten");
        self.effect(Effect::Forget(name.clone(), vec![(id, Ok(Answer::Done))]));
        Ok(())
    }

    fn history(
        &self,
        vm: Option<&VmName>,
        after: Option<Timestamp>,
        limit: usize,
    ) -> Result<Answer, Failure> {
        if let Some(vm) = vm {
            self.must_know(vm)?;
        }
        Ok(Answer::History(self.recorder.after(after, limit)))
    }

    pub(super) fn must_status(&self, name: &VmName) -> Result<VmStatus, Failure> {
        self.status(name).ok_or_else(|| unknown(name))
    }

    pub(super) fn must_know(&self, name: &VmName) -> Result<&Vm, Failure> {
        self.vm(name).ok_or_else(|| unknown(name))
    }

    /// A VM whose record cannot be read is not replaced by another, nor changed.
    pub(super) fn must_be_readable(&self, name: &VmName) -> Result<(), Failure> {
        let Some(unread) = self.vm(name).and_then(|vm| vm.unread.as_ref()) else { return Ok(()) };
        let text = format!(
            "VM {name}: {}: repair the file and restart plimsolld, or remove the VM with: plimsoll rm {name}",
            unread.why
        );
        Err(Failure::new(FailureKind::Conflict, text))
    }

    pub(super) fn must_run(&self, name: &VmName) -> Result<RunId, Failure> {
        self.must_know(name)?
            .run
            .ok_or_else(|| Failure::new(FailureKind::Conflict, format!("VM {name} is off")))
    }
}

/// What a change says in the list of events.
fn news(before: &VmDefinition, now: &VmDefinition) -> String {
    let mut text = format!(
        "has shares {}, reservation {}, limit {}, pool {} and sharing {} now",
        now.shares,
        now.reservation,
        now.limit(),
        now.pool,
        now.memory.sharing
    );
    let start = |vm: &VmDefinition| (vm.autostart, vm.start_order, vm.start_delay);
    if start(now) != start(before) {
        let (autostart, order, delay) = start(now);
        let with = if autostart { "starts" } else { "does not start" };
        text += &format!("; {with} with the host, start order {order}, delay {delay}");
    }
    if now.labels != before.labels {
        text += &format!("; labels {}", now.labels);
    }
    if !devices::changes(before, now).is_empty() {
        let [disks, nets] =
            [words::disks(&devices::disks(now)), words::nets(&devices::nets(now, &Facts::default()))];
        let devices: Vec<String> = [disks, nets].into_iter().filter(|text| !text.is_empty()).collect();
        text += &format!("; {}", devices.join("; "));
    }
    text
}

fn unknown(name: &VmName) -> Failure {
    let text = format!("there is no VM {name}: see plimsoll ps");
    Failure::new(FailureKind::Unknown, text)
}
