use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use plimsoll_policy::{Grants, LONG_WAIT, Party, PoolId, Stage};
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::Pages;

use super::run::{Phase, Run};
use super::{Core, Effect, RunId, limit, overhead, reservation, size};
use crate::pools::Pools;

/// A round of giving: policy's grants, and the run of each party.
pub(super) struct Round {
    pub(super) grants: Grants,
    runs: Vec<RunId>,
    indices: HashMap<RunId, usize>,
}

impl Round {
    pub(super) fn index(&self, run: RunId) -> Option<usize> {
        self.indices.get(&run).copied()
    }

    /// Drops the promises to queued VMs.
    pub(super) fn leave_out_queued(&mut self) {
        for i in 0..self.runs.len() {
            if matches!(self.grants.party(i).stage, Stage::Queued { .. }) {
                self.grants.set_stage(i, Stage::Leaving);
            }
        }
    }

    /// Free memory that is not promised to VMs other than `run`.
    pub(super) fn open(&self, run: RunId) -> Pages {
        self.index(run).map_or(Pages::ZERO, |i| self.grants.open(i))
    }
}

/// What a VM that waits was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    /// Less than it waits for.
    Less,
    /// All that it waits for; or the ledger has refused, which is logged.
    Enough,
}

/// The VMs that a round serves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Those that have just asked.
    Askers,
    /// All that wait.
    All,
}

/// Giving out memory. The ledger is charged first; the message follows.
impl Core {
    /// A round of giving under the ledger as it is, among the host's own pools.
    pub(super) fn round(&self) -> Round {
        self.round_among(&self.pools)
    }

    /// A round of giving under the ledger as it is, among `pools`.
    pub(super) fn round_among(&self, pools: &Pools) -> Round {
        let (runs, parties): (Vec<RunId>, _) =
            self.running().map(|(vm, run)| (run.id, self.claimant(pools, vm, run))).unzip();
        let indices = runs.iter().enumerate().map(|(i, run)| (*run, i)).collect();
        let thresholds = self.settings.thresholds;
        let grants = Grants::new(self.ledger.free(), thresholds, pools.tree(), parties);
        Round { grants, runs, indices }
    }

    /// A VM as policy sees it when memory is given out.
    fn claimant(&self, pools: &Pools, definition: &VmDefinition, run: &Run) -> Party {
        let part = self.part(run.id);
        let granted = self.ledger.account(run.id).grant.saturating_add(part);
        Party {
            // Every VM's pool exists.
            pool: pools.id(&definition.pool).unwrap_or(PoolId::ROOT),
            shares: definition.shares.resolve(definition.size),
            stage: match run.phase {
                Phase::Queued(_) => Stage::Queued { overhead: overhead(definition) },
                _ if run.takes_part() => Stage::Running,
                _ => Stage::Leaving,
            },
            granted,
            // Its part of frames is rounded up: a page less is certainly its own.
            certain: granted.saturating_sub(part.min(Pages(1))),
            wanted: run.wanted,
            usable: self.unshared(definition, run.id),
            entitlement: run.decided.entitlement,
            lent: run.decided.lent,
            worth: run.decided.worth,
            most: run.decided.most,
            limit: limit(definition),
            reservation: reservation(definition),
            driver: run.driver(),
            inflates: run.inflates(),
            can_page: run.can_page(self.settings.rules.largest_store),
            swap: self.pageable(definition, run).swap,
            waited: run.waiting_since.map_or(Duration::ZERO, |since| self.clock.now.duration_since(since)),
            starved: run.waited,
            leeway: if granted <= run.claim() { Pages::ZERO } else { run.leeway },
        }
    }

    /// Returns what a VM can use beyond its grant, without the pages that it shares. A shared page
    /// that is written to takes memory before its reference comes back: hence the chunk.
    fn unshared(&self, definition: &VmDefinition, run: RunId) -> Pages {
        let has = self.ledger.account(run).grant.saturating_add(self.references(run));
        size(definition).saturating_add(Pages::CHUNK).saturating_sub(has)
    }

    /// Gives a VM that has just asked its allowance. It is told even of a grant of 0: its VMM then
    /// fills single pages. Where it lacks memory afterwards, others may have to give first: that is
    /// decided at once.
    fn answer(&mut self, round: &mut Round, i: usize) {
        let given = self.give(round, i);
        if given == Given::Nothing {
            let run = round.runs[i];
            let total = self.ledger.account(run).grant;
            self.effect(Effect::Grant { run, pages: Pages::ZERO, total });
        }
        self.pressing |= given != Given::Enough;
    }

    /// Gives a waiting VM its allowance.
    fn give(&mut self, round: &mut Round, i: usize) -> Given {
        let id = round.runs[i];
        let pages = if self.recovering > 0 { Pages::ZERO } else { round.grants.allowance(i) };
        if pages == Pages::ZERO {
            self.urgent = true;
            return Given::Nothing;
        }
        if let Err(e) = self.ledger.charge(id, pages) {
            // Policy allows no more than is free. If it did, the ledger would still hold.
            tracing::error!(run = ?id, "grant refused by the ledger: {e}");
            return Given::Enough;
        }
        round.grants.give(i, pages);
        let total = self.ledger.account(id).grant;
        self.effect(Effect::Grant { run: id, pages, total });
        let free = self.ledger.free();
        let now = self.clock.now;
        let mut short = false;
        let name = self.name_of(id);
        if let (Some(run), Some(name)) = (self.run_mut(id), name) {
            let leeway = round.grants.party(i).leeway;
            let more = leeway > run.leeway;
            run.leeway = leeway;
            run.since_division.given = run.since_division.given.saturating_add(pages);
            if let Some(level) = &mut run.paging.level {
                *level = level.saturating_add(pages);
            }
            let left = run.wanted.saturating_sub(pages);
            run.wants(left, now);
            if more && left > Pages::ZERO {
                // The next chunk comes when it has waited for another period.
                run.waiting_since = Some(now);
            }
            short = left > Pages::ZERO;
            tracing::debug!(vm = %name, granted = %pages.bytes(), total = %total.bytes(), left = %left.bytes(), free = %free.bytes(), "grant");
        }
        self.urgent |= short;
        if short { Given::Less } else { Given::Enough }
    }

    /// Serves VMs that wait: those that have just asked, and all if memory has come back since that
    /// was done last.
    pub(super) fn serve(&mut self) {
        if self.returned {
            self.give_all();
        } else if !self.asked.is_empty() {
            let asked = std::mem::take(&mut self.asked);
            self.give_round(&asked, Serves::Askers);
        }
    }

    /// Serves all VMs that wait: those that wait to start first.
    pub(super) fn give_all(&mut self) {
        self.returned = false;
        self.launch_queued();
        let asked = std::mem::take(&mut self.asked);
        if !asked.is_empty() || self.running().any(|(_, run)| run.wanted > Pages::ZERO) {
            self.give_round(&asked, Serves::All);
        }
    }

    /// Serves VMs that wait, in policy's order: those that have `asked`, or all.
    fn give_round(&mut self, asked: &BTreeSet<RunId>, serves: Serves) {
        let mut round = self.round();
        let mut answered = BTreeSet::new();
        for i in round.grants.order() {
            let run = round.runs[i];
            if asked.contains(&run) {
                self.answer(&mut round, i);
                answered.insert(run);
            } else if serves == Serves::All {
                self.give(&mut round, i);
            }
        }
        // What they asked for is beyond their bounds.
        for i in asked.difference(&answered).filter_map(|run| round.index(*run)).collect::<Vec<_>>() {
            self.answer(&mut round, i);
        }
    }

    /// Marks the VMs that have waited for a whole period and still wait.
    pub(super) fn note_long_waits(&mut self) {
        let now = self.clock.now;
        let runs: Vec<RunId> = self.running().map(|(_, run)| run.id).collect();
        for id in runs {
            let Some(run) = self.run_mut(id).filter(|run| run.takes_part()) else { continue };
            if run.waiting_since.is_some_and(|since| now.duration_since(since) >= LONG_WAIT) {
                run.waiting_since = Some(now);
                run.waited = true;
            }
        }
    }

    /// A VM that has waited in vain pages until there is memory for it again.
    pub(super) fn end_served_waits(&mut self) {
        if self.running().all(|(_, run)| !run.waited) {
            return;
        }
        let round = self.round();
        for (i, id) in round.runs.iter().enumerate() {
            let served = round.grants.could_have(i) > Pages::ZERO;
            if let Some(run) = self.run_mut(*id).filter(|_| served) {
                run.waited = false;
            }
        }
    }

    /// Takes back pages that a VMM has returned.
    pub(super) fn take_back(&mut self, run: RunId, vm: &VmName, pages: Pages) {
        match self.ledger.credit(run, pages) {
            Ok(()) => {
                let total = self.ledger.account(run).grant;
                self.effect(Effect::Returned { run, total });
                if let Some(run) = self.run_mut(run) {
                    run.leeway = run.leeway.saturating_sub(pages);
                    // Its last report is older than this return.
                    run.facts.held = run.facts.held.min(total);
                }
                tracing::debug!(%vm, returned = %pages.bytes(), total = %total.bytes(), "return");
                self.returned = true;
            }
            Err(e) => self.breach(run, &format!("it broke the protocol: {e}")),
        }
    }
}
