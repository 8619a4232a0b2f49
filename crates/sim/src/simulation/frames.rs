//! Pages that VMs of a sharing domain share.

use std::collections::BTreeMap;

use plimsoll_units::Pages;

use super::Simulation;
use crate::memory::{Memory, portion};
use crate::sharing::{divide_scan, share};
use crate::vm::Run;

impl Simulation {
    pub(super) fn share_pages(&mut self) {
        let scanned = self.in_step(self.scenario.host.scan_speed);
        let held: Vec<Pages> =
            self.vms.iter().map(|slot| slot.run().map_or(Pages::ZERO, |r| r.guest.memory.held())).collect();
        let looks = divide_scan(scanned, &held, &mut self.scan_credit);
        for ((slot, spec), look) in self.vms.iter_mut().zip(&self.scenario.vms).zip(looks) {
            if let Some(run) = slot.run_mut().filter(|_| look > Pages::ZERO) {
                run.scan.look(&mut run.guest.memory, look, spec.guest.common);
            }
        }
        self.settle_frames();
    }

    /// Lets each domain share what was found, and charges its frames to its sharers.
    pub(super) fn settle_frames(&mut self) {
        let mut domains: BTreeMap<&str, Vec<&mut Run>> = BTreeMap::new();
        for (slot, spec) in self.vms.iter_mut().zip(&self.scenario.vms) {
            if let (Some(run), Some(domain)) = (slot.run_mut(), &spec.guest.domain) {
                domains.entry(domain).or_default().push(run);
            }
        }
        self.frames.clear();
        for (domain, mut runs) in domains {
            let mut sharers: Vec<(&mut Memory, Pages)> = runs
                .iter_mut()
                .map(|run| {
                    let known = run.scan.known();
                    (&mut run.guest.memory, known)
                })
                .collect();
            let frames = share(&mut sharers);
            let all: Pages = runs.iter().map(|run| run.guest.memory.common).sum();
            for run in &mut runs {
                run.frames = portion(frames, run.guest.memory.common, all);
            }
            self.frames.insert(domain.to_owned(), frames);
        }
    }
}
