//! Carrying out what the core has decided.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use plimsoll_protocol::control::ToVmm;
use plimsoll_protocol::sharing::{DomainId, SharingKind};
use plimsoll_units::Pages;

use super::Daemon;
use crate::core::{Answer, Effect, Input, RequestId, RunId, unsaved_note};
use crate::domains::Order;
use crate::incoming::CallResult;
use crate::launch::{RunRecord, identify};
use crate::link::Link;

impl Daemon {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { run, record, grant } => self.launch(run, *record, grant),
            Effect::Grant { run, pages, total } => {
                self.note_grant(run, total);
                self.post(run, ToVmm::Grant(pages), Vec::new());
            }
            Effect::Returned { run, total } => self.note_grant(run, total),
            Effect::Send(run, message) => self.post(run, message, Vec::new()),
            Effect::SendWith(run, message, fds) => self.post_sharing(run, message, fds),
            Effect::Dial { run, id, port } => self.dial(run, id, port),
            Effect::Kill(run) => {
                if let Some(live) = self.live.get_mut(&run) {
                    live.killed = true;
                    if live.process.is_none() {
                        live.process = identify(&live.vm, live.directory.path()).map(Arc::new);
                    }
                    if let Some(process) = &live.process {
                        process.kill();
                    }
                }
            }
            Effect::Clear(run, name) => self.clear(run, &name),
            Effect::Save(record, answers) => {
                let saved = self.saver.save(record);
                self.answer_after(answers, saved);
            }
            Effect::SavePools(pools, answers) => {
                let saved = self.saver.save_pools(pools);
                self.answer_after(answers, saved);
            }
            Effect::Forget(name, answers) => {
                let forgotten = self.saver.forget(name);
                self.answer_after(answers, forgotten);
            }
            Effect::Rename(old, record, answers) => {
                let renamed = self.saver.rename(old, record);
                self.answer_after(answers, renamed);
            }
            Effect::RecordMissingJail(run, missing) => {
                self.note(run, |record| record.missing_jail = missing);
            }
            Effect::Joins(run, domain) => {
                let gone = self.former_and_gone(run);
                let noted = self.note(run, |record| record.joins(domain, &gone));
                if let Some(live) = self.live.get_mut(&run) {
                    live.may_map = noted;
                }
            }
            Effect::Grow(growing) => self.grow(growing),
            Effect::Keep(record, growing, size) => self.keep_size(record, growing, size),
            Effect::Order(order) => self.order(order),
            Effect::Record(event) => {
                self.news.send_replace(event.id);
                self.event_log.record(event);
            }
            Effect::Answer(id, answer) => self.answer(id, answer),
        }
    }

    pub(super) fn link(&self, run: RunId) -> Option<&Link> {
        self.live.get(&run)?.link.as_ref()
    }

    /// Connects a guest to a port of the host. The jailed VMM cannot do it.
    fn dial(&mut self, run: RunId, id: u64, port: u32) {
        let Some(live) = self.live.get(&run) else { return };
        let socket = live.directory.dial(port);
        if let Err(e) = &socket {
            tracing::debug!(vm = %live.vm, port, "the guest cannot reach it: {e}");
            // A guest may try ports at which nobody listens; all else is its operator's business.
            if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                self.handle(Input::NotDialed(run, port, e.to_string()));
            }
        }
        let fds: Vec<OwnedFd> = socket.into_iter().collect();
        self.post(run, ToVmm::Dialed { id, connected: !fds.is_empty() }, fds);
    }

    fn order(&mut self, order: Order) {
        if let Some(link) = order.asker().and_then(|run| self.link(run)) {
            link.asked();
        }
        // Where the thread has ended the daemon ends, too: see `run`.
        self.worker.order(order).ok();
    }

    /// Changes a run's record on disk, for a restarted daemon. Returns whether it is written.
    fn note(&mut self, run: RunId, change: impl FnOnce(&mut RunRecord)) -> bool {
        let Some(live) = self.live.get_mut(&run) else { return false };
        let Some(record) = &mut live.record else { return false };
        change(record);
        live.directory.write_record(record).inspect_err(|e| tracing::error!(vm = %live.vm, "{e:#}")).is_ok()
    }

    /// The domains that a VM has left and that are gone since: its run record need not name them.
    fn former_and_gone(&self, run: RunId) -> Vec<DomainId> {
        let record = self.live.get(&run).and_then(|live| live.record.as_ref());
        let former = record.into_iter().flat_map(|record| &record.former);
        former.map(|known| known.id).filter(|id| self.core.is_gone(*id)).collect()
    }

    /// Tells a VMM its sharing domain. A VMM maps frames only of a domain that its run record
    /// names: a restarted daemon would free the frames of any other while they are mapped.
    fn post_sharing(&mut self, run: RunId, message: ToVmm, fds: Vec<OwnedFd>) {
        match message {
            ToVmm::Sharing { domain: SharingKind::Frames { .. }, scan }
                if self.live.get(&run).is_some_and(|live| !live.may_map) =>
            {
                self.post(run, ToVmm::Sharing { domain: SharingKind::Zero, scan }, Vec::new());
            }
            message => self.post(run, message, fds),
        }
    }

    fn answer(&mut self, id: RequestId, answer: CallResult) {
        if let Some(call) = self.calls.remove(&id) {
            // A client that has gone needs no answer.
            call.send(answer).ok();
        }
    }

    fn answer_after<F>(&mut self, answers: Vec<(RequestId, CallResult)>, written: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let calls: Vec<_> =
            answers.into_iter().filter_map(|(id, answer)| Some((self.calls.remove(&id)?, answer))).collect();
        if calls.is_empty() {
            return;
        }
        tokio::spawn(async move {
            let failed = written.await.err().map(|e| format!("{e:#}"));
            for (call, mut answer) in calls {
                if let (Some(why), Ok(done)) = (&failed, &mut answer) {
                    if let Answer::Vm(vm) = done {
                        let before = vm.note.take().map(|note| format!("{note}; "));
                        vm.note = Some(before.unwrap_or_default() + &unsaved_note(why));
                    }
                    let done = Box::new(std::mem::replace(done, Answer::Done));
                    answer = Ok(Answer::Unsaved(done, why.clone()));
                }
                call.send(answer).ok(); // As in `answer`.
            }
        });
    }

    fn post(&mut self, run: RunId, message: ToVmm, fds: Vec<OwnedFd>) {
        let Some(link) = self.link(run) else { return };
        if let Some(ToVmm::Share { domain, pages }) = link.post(message, fds) {
            self.handle(Input::Unsent(run, domain, pages));
        }
    }

    /// Writes a VM's grant and has the kernel allow it, before the VMM is told.
    fn note_grant(&self, run: RunId, total: Pages) {
        let Some(live) = self.live.get(&run) else { return };
        if let Err(e) = live.directory.write_grant(total) {
            tracing::error!(run = run.0, "cannot write down its grant: {e}");
        }
        if let Some(bound) = &live.bound {
            bound.set(total);
        }
    }
}
