use plimsoll_policy::PagingCause;
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{
    Chunks, ExitReason, Facts, FromVmm, GuestFacts, LONGEST_SAMPLE_PERIOD, MAX_NOTICE, MAX_SAMPLES,
    SampleFacts, Sampled, SamplingFacts, ToVmm,
};
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_text::one_line;
use plimsoll_units::{Bytes, Pages, ReturnReason};

use super::divide::BALLOON_STEP;
use super::rates::Rates;
use super::run::{Phase, Run};
use super::{Core, Effect, LAST_GRACE, RunId, limit, size};
use crate::ledger::Account;

/// Address space behind guest memory where samples are.
const ASIDE: Bytes = Bytes(MAX_SAMPLES as u64 * plimsoll_units::CHUNK_SIZE);

/// Messages of VMMs. A VMM is taken to be hostile: its numbers are bounded by what is possible, and
/// an impossible message ends it.
impl Core {
    pub(super) fn message(&mut self, id: RunId, message: FromVmm) {
        let Some(name) = self.name_of(id) else { return };
        if self.run(id).is_none_or(Run::is_over) {
            return;
        }
        self.heard_from(id, &name);
        match message {
            // A connection begins with it, and it was read when the connection was set up.
            FromVmm::Hello { .. } => {
                self.breach(id, "it broke the protocol: a second greeting on one connection");
            }
            FromVmm::Running { missing_jail } => self.guest_runs(id, &name, missing_jail),
            FromVmm::Want(pages) => self.want(id, &name, pages),
            FromVmm::Return(pages) => self.take_back(id, &name, pages),
            FromVmm::Report(facts) => self.report(id, &name, facts),
            FromVmm::Rebooted => {
                let now = self.clock.now;
                if let Some(run) = self.run_mut(id) {
                    run.wants(Pages::ZERO, now);
                    run.beyond = Pages::ZERO;
                    if matches!(run.phase, Phase::Stopping) {
                        run.phase = Phase::Running;
                    }
                }
                self.told_by(id, "the guest rebooted");
            }
            FromVmm::LookUp { domain, id: question, pages } => self.look_up(id, domain, question, pages),
            FromVmm::Offer { domain, id: question, pages } => {
                self.offer(id, domain, question, pages);
            }
            FromVmm::GiveBack { domain, pages, mismatched } => {
                self.give_frames_back(id, domain, pages, ReturnReason::of(mismatched));
            }
            // Like the greeting.
            FromVmm::Pool(_) | FromVmm::Holds { .. } => {
                self.breach(
                    id,
                    "it broke the protocol: it tells of its frames in the middle of a connection",
                );
            }
            FromVmm::Dial { id: question, port } => self.dial(id, question, port),
            FromVmm::Resized { disk, outcome } => {
                let outcome = outcome.map_err(|why| tellable(&why));
                self.resized(id, &name, disk, outcome);
            }
            FromVmm::Notice(text) => self.told_by(id, tellable(&text)),
            FromVmm::Exit(reason) => {
                let reason = match reason {
                    ExitReason::Shutdown => ExitReason::Shutdown,
                    ExitReason::Crashed(how) => ExitReason::Crashed(tellable(&how)),
                    ExitReason::Failed(what) => ExitReason::Failed(tellable(&what)),
                };
                let deadline = self.clock.now + LAST_GRACE;
                if let Some(run) = self.run_mut(id) {
                    run.ends_by(deadline, Some(reason));
                }
            }
        }
    }

    fn guest_runs(&mut self, id: RunId, name: &VmName, mut missing: Vec<JailPart>) {
        let Some(vm) = self.vms.get(name) else { return };
        let allowed = &vm.record.definition.jail.allow_missing;
        let Some(run) = self.runs.get_mut(&id) else { return };
        if missing.len() > JailPart::COUNT {
            let why = format!("it broke the protocol: it names {} missing parts of its jail", missing.len());
            self.breach(id, &why);
            return;
        }
        if let Some(part) = missing.iter().find(|part| !allowed.contains(part)) {
            let why = format!(
                "it runs without the {part} part of its jail, which jail.allow_missing does not name"
            );
            self.breach(id, &why);
            return;
        }
        missing.extend(&run.missing_jail);
        missing.sort_unstable();
        missing.dedup();
        run.missing_jail.clone_from(&missing);
        let Phase::Booting(start) = &mut run.phase else {
            // A VMM says it again to a daemon that has been restarted.
            return;
        };
        let waiter = start.waiter.take();
        run.phase = Phase::Running;
        self.event(Some(name), "runs");
        self.effect(Effect::RecordMissingJail(id, missing));
        if let Some(waiter) = waiter {
            let answer = self.started_answer(name);
            self.effect(Effect::Answer(waiter.request, answer));
        }
    }

    /// The guest wants to reach a port of the host. The daemon looks in the VM's own directory and
    /// nowhere else.
    fn dial(&mut self, run: RunId, id: u64, port: u32) {
        let has_vsock = self.definition_of(run).is_some_and(|definition| definition.vsock.is_some());
        self.effect(match has_vsock {
            true => Effect::Dial { run, id, port },
            false => Effect::Send(run, ToVmm::Dialed { id, connected: false }),
        });
    }

    /// The guest was refused a port of the host although a program may listen there.
    pub(super) fn not_dialed(&mut self, run: RunId, port: u32, why: &str) {
        self.told_by(run, format!("its guest was refused port {port} of the host: {why}"));
    }

    fn want(&mut self, id: RunId, name: &VmName, pages: Pages) {
        let bounds = self.vm(name).map(|vm| (limit(&vm.record.definition), size(&vm.record.definition)));
        let Some((most, size)) = bounds else { return };
        let room = room(most, self.ledger.account(id).grant);
        let now = self.clock.now;
        if let Some(run) = self.run_mut(id) {
            run.wants(pages.min(room), now);
            run.beyond = pages.min(size).saturating_sub(room);
        }
        if pages > Pages::ZERO {
            tracing::debug!(vm = %name, wanted = %pages.bytes(), "want");
            self.asked.insert(id);
        }
    }

    fn report(&mut self, id: RunId, name: &VmName, claim: Facts) {
        let Account { grant, pledged, .. } = self.ledger.account(id);
        let now = self.clock.now;
        let Some(vm) = self.vms.get(name) else { return };
        let facts = possible(claim, &vm.record.definition, grant);
        let beyond = claim.wanted.min(size(&vm.record.definition)).saturating_sub(facts.wanted);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (before, elapsed) = run.counted;
        if let Some(rates) = Rates::between(&before, &facts, now.saturating_duration_since(elapsed)) {
            (run.rates, run.counted) = (rates, (facts, now));
        }
        let before = std::mem::replace(&mut run.facts, facts);
        run.observe_scan(&before);
        run.since_division.took_back |= took_back(&before, &facts);
        if matches!(run.paging_cause, Some(PagingCause::AtLimit | PagingCause::Waited)) {
            let replaced = &mut run.since_division.replaced;
            *replaced = replaced.saturating_add(paged_out(&before, &facts));
        }
        let executed = |facts: &Facts| facts.sampling.executed;
        let total = &mut run.since_division.executed;
        *total = total.saturating_add(executed(&facts).saturating_sub(executed(&before)));
        run.usage.observe(&facts.sampling);
        // A grant that the VMM had not read yet answers a part of its claim. Pages that it has
        // pledged to become frames are not such a grant.
        let under_way = grant.saturating_sub(pledged).saturating_sub(facts.grant);
        run.wants(facts.wanted.saturating_sub(under_way), now);
        run.beyond = beyond;
        self.observe_stall(id, name, &facts);
    }
}

/// The part of a VMM's claims that can be true of a VM of this definition that was granted `grant`.
pub(super) fn possible(claim: Facts, definition: &VmDefinition, grant: Pages) -> Facts {
    let (size, limit) = (size(definition), limit(definition));
    let chunks = size.0 / plimsoll_units::CHUNK_PAGES;
    let memory = |bytes: Bytes| bytes.min(definition.size);
    Facts {
        grant: claim.grant.min(grant),
        held: claim.held.min(grant),
        wanted: claim.wanted.min(room(limit, grant.min(claim.grant))),
        ballooned: claim.ballooned.min(size),
        balloon_actual: claim.balloon_actual.min(size),
        balloon_target: claim.balloon_target.min(size),
        chunks: Chunks {
            empty: claim.chunks.empty.min(chunks),
            large: claim.chunks.large.min(chunks),
            small: claim.chunks.small.min(chunks),
        },
        guest: claim.guest.map(|guest| GuestFacts {
            total: memory(guest.total),
            free: memory(guest.free),
            available: memory(guest.available),
            cache: memory(guest.cache),
            ballooned: guest.ballooned.min(size),
            ..guest
        }),
        ram: (claim.ram.0, claim.ram.1.min(definition.size.saturating_add(ASIDE))),
        compressed: claim.compressed.min(size),
        store: claim.store.min(grant),
        swapped: claim.swapped.min(size),
        shared: claim.shared.min(size),
        zero: claim.zero.min(size),
        sampling: SamplingFacts {
            executed: claim.sampling.executed,
            period: claim.sampling.period,
            now: possible_sample(claim.sampling.now, size),
            last: possible_sample(claim.sampling.last, size),
        },
        ..claim
    }
}

/// Pages compressed or swapped out between two reports.
fn paged_out(before: &Facts, facts: &Facts) -> Pages {
    let out = |facts: &Facts| facts.zipped.saturating_add(facts.swapped_out);
    Pages(out(facts).saturating_sub(out(before)))
}

/// Whether a guest has taken pages out of its balloon without being told to: it lacks memory.
fn took_back(before: &Facts, facts: &Facts) -> bool {
    let driven = before.balloon_driver && facts.balloon_driver && before.reboots == facts.reboots;
    let told = before.balloon_target.min(facts.balloon_target).min(before.balloon_actual);
    driven && facts.balloon_actual.saturating_add(BALLOON_STEP) <= told
}

/// The part of a sample's claims that can be true of a VM of `size`. A VMM that makes its VM seem
/// idle gets less for it, and one that makes it seem busy no more than its shares are worth.
fn possible_sample(claim: SampleFacts, size: Pages) -> SampleFacts {
    let sampled = |claim: Sampled, most: u64| {
        let population = claim.population.min(most);
        let sampled = claim.sampled.min(population).min(MAX_SAMPLES.into());
        Sampled { population, sampled, touched: claim.touched.min(sampled) }
    };
    // Of each chunk several pages are watched.
    let inside = |claim: Sampled, chunks: u64| {
        let watched = claim.sampled.min(MAX_SAMPLES.into());
        Sampled {
            population: claim.population.min(chunks),
            sampled: watched,
            touched: claim.touched.min(watched),
        }
    };
    SampleFacts {
        elapsed: claim.elapsed.min(LONGEST_SAMPLE_PERIOD),
        chunks: sampled(claim.chunks, size.0 / plimsoll_units::CHUNK_PAGES),
        pages: sampled(claim.pages, size.0),
        inside: inside(claim.inside, size.0 / plimsoll_units::CHUNK_PAGES),
        arrived: claim.arrived.min(size),
    }
}

/// The most that a VM may wait for: the rest of its limit or, if that was lowered below its grant,
/// the chunk that its driver may need to run.
fn room(limit: Pages, grant: Pages) -> Pages {
    if grant > limit { Pages::CHUNK } else { limit.saturating_sub(grant) }
}

/// A text of a VMM as it may be told: it goes to logs and terminals.
fn tellable(text: &str) -> String {
    one_line(text, MAX_NOTICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_that_shrinks_below_what_it_was_told_is_its_guests_doing() {
        let balloon = |target, actual| Facts {
            balloon_driver: true,
            balloon_target: Pages(target),
            balloon_actual: Pages(actual),
            ..Facts::default()
        };
        assert!(took_back(&balloon(5000, 5000), &balloon(5000, 4744)));
        assert!(!took_back(&balloon(5000, 5000), &balloon(5000, 4745)), "less than a step");
        assert!(!took_back(&balloon(5000, 5000), &balloon(1000, 3000)), "it was told to shrink");
        assert!(!took_back(&balloon(5000, 1000), &balloon(5000, 2000)), "it grows");
        let gone = Facts { balloon_driver: false, ..balloon(5000, 0) };
        assert!(!took_back(&balloon(5000, 5000), &gone), "its driver is gone");
        let rebooted = Facts { reboots: 1, ..balloon(5000, 0) };
        assert!(!took_back(&balloon(5000, 5000), &rebooted));
    }

    #[test]
    fn a_notice_is_one_clean_line_of_bounded_length() {
        assert_eq!(tellable("a\nb\x1b[31m"), "a b [31m");
        assert_eq!(tellable(&"ä".repeat(MAX_NOTICE)).len(), MAX_NOTICE);
    }
}
