//! Asking the kernel, beside the loop, what VMs hold and what the machine has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_units::Bytes;

use super::Daemon;
use crate::core::RunId;
use crate::incoming::Incoming;
use crate::memory::Usable;
use crate::rota::thread_time;
use crate::{adopt, kernel_account, vmm_log};

impl Daemon {
    /// Asks the kernel for the memory of all processes in one go, and of the machine, so that what
    /// moves from one to another in between is not counted twice.
    pub(super) fn ask_for_processes(&mut self) {
        if std::mem::replace(&mut self.asking_processes, true) {
            return;
        }
        let asked: Vec<_> = self
            .live
            .iter()
            .filter_map(|(run, live)| Some((*run, Arc::clone(live.process.as_ref()?), live.link.is_none())))
            .collect();
        // Memory of a process that is not known would count as taken by other programs.
        let all_known = asked.len() == self.live.len();
        let (sender, frames) = (self.sender.clone(), self.core.frames().bytes());
        tokio::task::spawn_blocking(move || {
            let processes: Vec<_> =
                asked.iter().map(|(run, process, _)| (*run, kernel_account::process(process))).collect();
            // What VMs share that have not answered yet is not in the core's account.
            let silent = asked.iter().filter(|(.., silent)| *silent).map(|(_, process, _)| process.pid());
            let frames = frames.max(adopt::frames(silent));
            let held = processes.iter().map(|(_, memory)| memory.anonymous).sum::<Bytes>();
            let usable = Usable::look(held.saturating_add(frames)).filter(|_| all_known);
            sender.blocking_send(Incoming::Processes(processes, usable)).ok(); // The daemon may be about to end.
        });
    }

    /// Asks the kernel for the memory of those guests whose turn it is, and cuts the logs of all
    /// VMMs. Both may take long: for page tables, and for a disk.
    pub(super) fn ask_for_guests(&mut self) {
        if std::mem::replace(&mut self.asking_guests, true) {
            return;
        }
        let began = Instant::now();
        let process = |(run, ram)| Some((run, (Arc::clone(self.live.get(&run)?.process.as_ref()?), ram)));
        let asked: HashMap<RunId, _> = self.core.ranges().into_iter().filter_map(process).collect();
        let logs: Vec<_> = self.live.values().map(|live| self.site.paths.vmm_log(&live.vm)).collect();
        let turn = self.rota.turn(began, asked.keys().copied());
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let before = thread_time();
            let spent = || thread_time().saturating_sub(before);
            let look = |run| asked.get(&run).map(|(process, ram)| kernel_account::guest(process, *ram));
            let guests = turn.run(look, spent);
            let cost = spent();
            logs.iter().for_each(|log| vmm_log::cut(log));
            sender.blocking_send(Incoming::Guests { began, guests, cost }).ok(); // As above.
        });
    }
}
