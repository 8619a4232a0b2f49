//! Asking the kernel, beside the loop, what VMs hold and what the machine has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_sys::clock::thread_processor_time;
use plimsoll_units::Bytes;

use super::Daemon;
use crate::cgroup::Cgroups;
use crate::core::RunId;
use crate::incoming::Incoming;
use crate::memory::Usable;
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
            .filter_map(|(run, live)| {
                // An unreachable VMM is charged all that it holds.
                let most = if live.link.is_some() { self.core.most_held(*run) } else { Bytes(u64::MAX) };
                let silent = live.link.is_none() || !self.core.counts_frames_of(*run);
                Some((*run, Arc::clone(live.process.as_ref()?), silent, most))
            })
            .collect();
        // Memory of a process that is not known would count as taken by other programs.
        let all_known = asked.len() == self.live.len();
        let (sender, frames) = (self.sender.clone(), self.core.frames().bytes());
        tokio::task::spawn_blocking(move || {
            let processes: Vec<_> =
                asked.iter().map(|(run, process, ..)| (*run, kernel_account::process(process))).collect();
            // The core's account lacks frames of VMs that have not answered yet, or only just.
            let silent =
                asked.iter().filter(|(_, _, silent, _)| *silent).map(|(_, process, ..)| process.pid());
            let frames = frames.max(adopt::frames(silent));
            // A VMM's excess is missing elsewhere: it does not count as memory for VMs.
            let own =
                processes.iter().zip(&asked).map(|((_, memory), (.., most))| memory.anonymous.min(*most));
            let held = own.sum::<Bytes>();
            let usable = Usable::look(held.saturating_add(frames)).filter(|_| all_known);
            sender.blocking_send(Incoming::Processes(processes, usable)).ok(); // The daemon may be about to end.
        });
    }

    /// Asks the kernel for the memory of those guests whose turn it is, lowers the bounds of those
    /// that have given memory back, and cuts the logs of all VMMs. All of it may take long: for
    /// page tables, for files' pages that are taken back, and for a disk.
    pub(super) fn ask_for_guests(&mut self) {
        if std::mem::replace(&mut self.asking_guests, true) {
            return;
        }
        let began = Instant::now();
        let process = |(run, ram)| Some((run, (Arc::clone(self.live.get(&run)?.process.as_ref()?), ram)));
        let asked: HashMap<RunId, _> = self.core.ranges().into_iter().filter_map(process).collect();
        let paths = &self.site.paths;
        let names = self.live.values().map(|live| &live.vm);
        let logs: Vec<_> = names.map(|vm| (paths.vmm_log(vm), paths.console_log(vm))).collect();
        let bounds: Vec<_> = self.live.values().filter_map(|live| live.bound.clone()).collect();
        let cgroups = self.site.cgroups.clone();
        let turn = self.rota.turn(began, asked.keys().copied());
        let sender = self.sender.clone();
        tokio::task::spawn_blocking(move || {
            let before = thread_processor_time();
            let spent = || thread_processor_time().saturating_sub(before);
            let look = |run| asked.get(&run).map(|(process, ram)| kernel_account::guest(process, *ram));
            let guests = turn.run(look, spent);
            let cost = spent();
            bounds.iter().for_each(|bound| bound.lower());
            cgroups.iter().for_each(Cgroups::tidy);
            for (log, console) in &logs {
                vmm_log::cut(log);
                vmm_log::bound_console(console);
            }
            sender.blocking_send(Incoming::Guests { began, guests, cost }).ok(); // As above.
        });
    }
}
