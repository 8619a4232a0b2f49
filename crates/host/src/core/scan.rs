use std::collections::BTreeMap;

use plimsoll_policy::{ScanHost, ScanVm, State, scan};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{Facts, ToVmm};
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::sharing::{DomainId, ScanBudget};
use plimsoll_protocol::status::{DomainStatus, SharingStatus};
use plimsoll_units::{Bytes, PAGE_SIZE};

use super::run::Run;
use super::{Core, Effect, RunId};
use crate::domains::DomainState;

/// How much VMs look for pages to share, and the state of sharing for users.
impl Core {
    /// Tells VMs their scan budgets, if these have changed by more than a little.
    pub(super) fn set_scan_budgets(&mut self) {
        let (state, eager) = (self.states.current(), self.settings.eager_sharing);
        let host = ScanHost {
            state: if eager { state.max(State::Soft) } else { state },
            idle: self.processors.idle,
            processors: self.processors.number,
        };
        let takes_part = |run: &Run| run.takes_part() && !run.is_without_process();
        let (ids, vms): (Vec<RunId>, Vec<ScanVm>) = self
            .running()
            .filter(|(_, run)| takes_part(run))
            .map(|(_, run)| {
                let above_entitlement = self.charged(run.id) > run.claim();
                // Pages that a guest shares while it boots are broken at once; with eager sharing
                // VMs look on all the same, as ESX Server did.
                let gain = run.sharing.gain.rate(run.facts.held).filter(|_| !eager);
                (run.id, ScanVm { held: run.facts.held, gain, above_entitlement })
            })
            .unzip();
        for (id, scan) in ids.into_iter().zip(scan(&host, &vms)) {
            let next = ScanBudget { share: scan.share, break_large: scan.break_large };
            let Some(run) = self.run_mut(id) else { continue };
            let before = run.sharing.scan;
            if next.break_large && !before.break_large {
                // There is more to find.
                run.sharing.gain.forget();
            }
            // A tenth more or less is not worth a message.
            let moved = next.share.abs_diff(before.share) > before.share / 10;
            if moved || next.break_large != before.break_large {
                run.sharing.scan = next;
                self.effect(Effect::Send(id, ToVmm::Budget(next)));
            }
        }
    }

    pub(super) fn sharing_of(&self, definition: &VmDefinition, run: Option<&Run>) -> SharingStatus {
        let with = definition.memory.sharing.clone();
        let Some(run) = run else { return SharingStatus { with, ..SharingStatus::default() } };
        let (facts, rates) = (&run.facts, &run.rates);
        let (shared, charged) = (self.references(run.id), self.part(run.id));
        let bytes = |pages: u64| Bytes(pages.saturating_mul(PAGE_SIZE));
        SharingStatus {
            with,
            leaving: run.sharing.part.is_leaving(),
            shared: shared.bytes(),
            charged: charged.bytes(),
            zero: facts.zero.bytes(),
            saved: shared.saturating_sub(charged).saturating_add(facts.zero).bytes(),
            scanned: bytes(facts.scanned),
            merged: bytes(facts.merged),
            broken: bytes(facts.broken),
            mismatched: facts.mismatched,
            scan_rate: bytes(rates.scanned),
            merge_rate: bytes(rates.merged),
            break_rate: bytes(rates.broken),
            cpu: rates.cpu,
            budget: run.sharing.scan.share,
            break_large: run.sharing.scan.break_large,
            mappings_full: facts.mappings_full,
            doubted: run.sharing.part.domain.is_some_and(|domain| domain.doubted),
        }
    }

    pub(super) fn all_domains(&self) -> Vec<DomainStatus> {
        let mut members: BTreeMap<DomainId, Vec<VmName>> = BTreeMap::new();
        for (definition, run) in self.running() {
            for membership in run.sharing.part.memberships() {
                members.entry(membership.id).or_default().push(definition.name.clone());
            }
        }
        let status = |id, state: &DomainState| DomainStatus {
            name: state.name.clone(),
            closed: state.closed,
            vms: members.get(&id).cloned().unwrap_or_default(),
            frames: state.stats.frames.bytes(),
            shared: state.stats.references.bytes(),
            saved: state.stats.saved.bytes(),
            hints: state.stats.hints.bytes(),
            index: state.stats.index,
        };
        let mut all: Vec<_> = self.mirror.all().map(|(id, state)| status(id, state)).collect();
        // Those with a name first.
        all.sort_by(|a, b| (a.name.is_none(), &a.name, &a.vms).cmp(&(b.name.is_none(), &b.name, &b.vms)));
        all
    }
}

impl Run {
    /// Takes what looking for pages has brought since the report `before`.
    pub(super) fn observe_scan(&mut self, before: &Facts) {
        let moved = |counter: fn(&Facts) -> u64| counter(&self.facts).saturating_sub(counter(before));
        let merged = moved(|f| f.merged).saturating_add(moved(|f| f.zeroed));
        let (scanned, broken) = (moved(|f| f.scanned), moved(|f| f.broken));
        self.sharing.gain.observe(scanned, merged, broken);
    }
}
