use std::time::Instant;

use plimsoll_policy::{Waiting, allowance};
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::BalloonHealth;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::Pages;

use super::control::PERIOD;
use super::{Core, Effect, RunId, limit, reservation, size};

/// What a VM above the most that it may have is given nevertheless, a chunk for its patience at a time, while its balloon
/// inflates. Less, and a guest's driver may stand still for want of a page; more, and a guest that only pretends
/// would gain from it.
const LEEWAY: Pages = Pages((16 << 20) / plimsoll_units::PAGE_SIZE);

/// Giving out memory. The ledger is charged first; the message follows.
impl Core {
    /// Gives a waiting VM what it may have now. With `answer` it hears of it even if that is nothing: its VMM then makes do
    /// with single pages.
    pub(super) fn give(&mut self, run: RunId, answer: bool) {
        let pages = self.allowed(run);
        if pages == Pages::ZERO {
            if answer {
                let total = self.ledger.account(run).grant;
                self.effect(Effect::Grant { run, pages, total });
            }
            self.urgent = true;
            // Others may have to give first: that is decided at once.
            self.pressing |= answer;
            return;
        }
        if let Err(e) = self.ledger.charge(run, pages) {
            // Nothing above may allow more than is free; if it does, the ledger still holds.
            tracing::error!(?run, "grant refused by the ledger: {e}");
            return;
        }
        let (total, charged) = (self.ledger.account(run).grant, self.charged(run));
        self.effect(Effect::Grant { run, pages, total });
        let free = self.ledger.free();
        let now = self.clock.now;
        let mut short = false;
        let name = self.runs.get(&run).cloned();
        if let (Some(run), Some(name)) = (self.run_mut(run), name) {
            if charged > run.most {
                run.leeway = run.leeway.saturating_add(pages);
            }
            if let Some(level) = &mut run.paging.level {
                *level = level.saturating_add(pages);
            }
            let left = run.wanted.saturating_sub(pages);
            run.wants(left, now);
            short = left > Pages::ZERO;
            tracing::debug!(vm = %name, granted = %pages.bytes(), total = %total.bytes(), left = %left.bytes(), free = %free.bytes(), "grant");
        }
        self.urgent |= short;
        self.pressing |= short && answer;
    }

    /// Serves all who wait: first those who wait to start, then the others, the smallest need first, so that a large one
    /// cannot starve them.
    pub(super) fn give_all(&mut self) {
        self.launch_queued();
        let mut waiting: Vec<(Pages, RunId)> = self
            .running()
            .filter(|(_, run)| run.takes_part() && run.wanted > Pages::ZERO)
            .map(|(_, run)| (run.wanted, run.id))
            .collect();
        waiting.sort_unstable();
        for (_, run) in waiting {
            self.give(run, false);
        }
    }

    /// Gives every VM that has waited for a whole period its share for patience, once a period.
    pub(super) fn reward_patience(&mut self) {
        let now = self.clock.now;
        let patient = |since: Option<Instant>| since.is_some_and(|s| now.duration_since(s) >= PERIOD);
        let runs: Vec<RunId> = self
            .running()
            .filter(|(_, run)| run.takes_part() && patient(run.waiting_since))
            .map(|(_, run)| run.id)
            .collect();
        for id in runs {
            self.give(id, false);
            if let Some(run) = self.run_mut(id).filter(|run| run.wanted > Pages::ZERO) {
                run.waiting_since = Some(now);
                run.waited = true;
            }
        }
    }

    /// What a VM that helps itself could have if it asked: not what its patience earns it, but what is free for it.
    pub(super) fn could_have(&self, run: RunId) -> Pages {
        self.allowance_of(run, Some(Pages::CHUNK), false)
    }

    fn allowed(&self, run: RunId) -> Pages {
        self.allowance_of(run, None, true)
    }

    /// What a VM may have now that wants `wanted`, or what it has said that it wants.
    fn allowance_of(&self, run: RunId, wanted: Option<Pages>, may_drip: bool) -> Pages {
        let Some((definition, run)) = self.running().find(|(_, r)| r.id == run) else {
            return Pages::ZERO;
        };
        if !run.takes_part() {
            return Pages::ZERO;
        }
        // Its part of shared frames counts as granted.
        let grant = self.charged(run.id);
        let (reservation, most) = (reservation(definition), limit(definition));
        let health = run.liveness.health();
        let stuck = health == BalloonHealth::Stuck;
        let waited = run.waiting_since.map_or(PERIOD / 2, |s| self.clock.now.duration_since(s));
        // Who can page helps himself.
        let patient =
            may_drip && waited >= PERIOD && !stuck && !run.can_page(self.settings.rules.largest_store);
        // In a pool with a limit it may have what policy and the other VMs there leave it, and what it has reserved.
        let room = self.room_in(&definition.pool);
        let in_pool = run.most.min(grant.saturating_add(room)).max(reservation);
        let mut most = most.min(in_pool);
        let inflates = health == BalloonHealth::Following && run.facts.ballooned < run.balloon;
        if patient && inflates && run.leeway < LEEWAY {
            // Its guest has to run for its balloon to inflate, even where its limit, or that of its pool, was lowered.
            let chunk = grant.saturating_add(Pages::CHUNK);
            most = most.max(if grant > limit(definition) { chunk } else { chunk.min(limit(definition)) });
        }
        if stuck {
            // A balloon that does not follow is never rewarded with more than the VM has a right to.
            most = most.min(run.entitlement.max(reservation).max(grant));
        }
        // What a pool above it has reserved and not been granted is as good as its own.
        let in_reserve = self.reserve_of(&definition.pool);
        let waiting = Waiting {
            wanted: wanted.unwrap_or(run.wanted),
            grant,
            entitlement: run.entitlement,
            limit: most,
            reservation: reservation.max(run.entitlement.min(grant.saturating_add(in_reserve))),
            patient,
        };
        allowance(&waiting, self.ledger.free(), self.withheld_from(run.id), &self.settings.thresholds)
            .min(self.unshared(definition, run.id))
    }

    /// What a VM can use beyond its grant, pages that it shares left out. A page that it writes to needs memory of its own before it gives its
    /// reference back: hence the chunk.
    fn unshared(&self, definition: &VmDefinition, run: RunId) -> Pages {
        let has = self.ledger.account(run).grant.saturating_add(self.references(run));
        size(definition).saturating_add(Pages::CHUNK).saturating_sub(has)
    }

    /// Takes back what a VMM says it returned.
    pub(super) fn take_back(&mut self, run: RunId, vm: &VmName, pages: Pages) {
        match self.ledger.credit(run, pages) {
            Ok(()) => {
                let (total, charged) = (self.ledger.account(run).grant, self.charged(run));
                self.effect(Effect::Returned { run, total });
                if let Some(run) = self.run_mut(run) {
                    if charged <= run.most {
                        run.leeway = Pages::ZERO;
                    }
                    // What it said it holds is older than what it gave back.
                    run.facts.held = run.facts.held.min(total);
                }
                tracing::debug!(%vm, returned = %pages.bytes(), total = %total.bytes(), "return");
                self.give_all();
            }
            Err(e) => self.breach(run, &format!("it broke the protocol: {e}")),
        }
    }
}
