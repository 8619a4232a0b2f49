use std::os::fd::OwnedFd;

use plimsoll_protocol::control::ToVmm;
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH, Sharing, SharingKind, WINDOW};
use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use super::run::{Phase, Run};
use super::tokens::Tokens;
use super::{Core, Effect, RunId, size};
use crate::domains::{DomainState, Joined, NotRecovered, Order, Outcome, Owner, Question, Report, Shared};

/// References that a VM may have beyond what its size and its grant explain: those of pages that it
/// has merged and not returned yet. Less, and an honest VM that merges fast would be refused; more,
/// and a hostile one could hold as many frames that it has no page for.
const IN_TRANSIT: Pages = Pages((32 << 20) / plimsoll_units::PAGE_SIZE);

/// The decisions of page sharing: which VM is in which domain, how much of the plane's time each VM
/// may take, and how memory moves between grants and frames in the ledger. [`crate::domains`]
/// carries them out, and says what may happen before it has.
impl Core {
    /// Has a VM take part in the domain that its definition names, and tells it once it does. It
    /// gives back its references in the domain before that bit by bit. `room`: see
    /// [`Order::Share`].
    pub(super) fn share(&mut self, id: RunId, room: Pages) {
        let Some(definition) = self.definition_of(id) else { return };
        let size = size(definition);
        let (owner, limit) = match definition.memory.sharing.clone() {
            Sharing::Off | Sharing::Zero => (None, Pages::ZERO),
            Sharing::Own => (Some(Owner::Run(id)), size),
            Sharing::With(domain) => (Some(Owner::Named(domain)), self.ledger.budget()),
        };
        if let Some(run) = self.run_mut(id) {
            run.sharing.moves += 1;
        }
        self.effect(Effect::Order(Order::Share { run: id, owner, size, limit, room }));
    }

    /// Has VMs leave domains that others have left, for new ones of the same names, as far as there
    /// is room for that: until a VM shares its pages anew they are its own. Without room it keeps
    /// what it shares, and shares nothing new: a host that is short of memory does not become
    /// shorter.
    pub(super) fn leave_closed_domains(&mut self) {
        let moving = |run: &&Run| run.sharing.is_moving();
        let promised: Pages =
            self.running().map(|(_, run)| run).filter(moving).map(|run| run.sharing.part.references()).sum();
        let spare = self.ledger.free().saturating_sub(self.settings.thresholds.clear);
        let mut room = spare.saturating_sub(promised);
        let may = |run: &&Run| run.takes_part() && !run.sharing.is_moving();
        let closed = self.running().map(|(_, run)| run).filter(may).filter_map(|run| {
            let domain = run.sharing.part.domain.filter(|domain| self.mirror.is_closed(domain.id))?;
            Some((run.id, domain.references))
        });
        for (id, references) in closed.collect::<Vec<_>>() {
            if references <= room {
                self.share(id, room);
                room -= references;
            }
        }
    }

    /// Takes a report: the ledger first, then what it says to VMMs.
    pub(super) fn reported(&mut self, report: Report) {
        let closes = |(id, state): &(DomainId, Option<DomainState>)| {
            state.as_ref().is_some_and(|state| state.closed) && !self.mirror.is_closed(*id)
        };
        let closed = report.domains.iter().any(closes);
        let freed = self.enter_frames(&report);
        for (id, part) in report.parts {
            let Some(run) = self.run_mut(id) else { continue };
            let before = std::mem::replace(&mut run.sharing.part, part);
            if before.domain.map(|domain| domain.id) != part.domain.map(|domain| domain.id) {
                run.sharing.gain.forget();
                self.urgent = true;
            }
        }
        match report.outcome {
            Outcome::Done => {}
            Outcome::Shared { run, shared } => self.shared(run, shared),
            Outcome::Found { run, question, found } => {
                let found = found.into_iter().map(wire).collect();
                self.effect(Effect::Send(run, ToVmm::Found { id: question, found }));
            }
            Outcome::Offered { run, domain, question, frames, created, notices, error } => {
                let paid = Pages(frames.len() as u64);
                self.answer_offer(run, question, frames, paid.saturating_sub(created));
                if let Some(e) = error {
                    let name = self.name_of(run);
                    self.event(
                        name.as_ref(),
                        format!("frames cannot be written: {e}: the host may be out of memory"),
                    );
                }
                notices.into_iter().for_each(|(id, pages)| self.notify(id, domain, pages));
            }
            Outcome::Recovered { run, result } => self.recovered(run, result.err()),
            Outcome::Tidied { more } => {
                self.tidying = false;
                self.urgent |= more;
            }
        }
        if closed {
            self.leave_closed_domains();
        }
        self.returned |= freed > Pages::ZERO;
    }

    /// Enters in the ledger what a report says of frames. Returns how many frames were freed.
    fn enter_frames(&mut self, report: &Report) -> Pages {
        let before = self.mirror.frames();
        report.domains.iter().for_each(|(id, state)| self.mirror.set(*id, state.clone()));
        let mut expected = before;
        if let Outcome::Offered { run, frames, created, .. } = &report.outcome {
            let pledged = Pages(frames.len() as u64);
            match self.ledger.redeem(*run, pledged, *created) {
                Ok(()) => expected += *created,
                Err(e) => tracing::error!(run = run.0, "frames do not add up when an offer is redeemed: {e}"),
            }
        }
        let after = self.mirror.frames();
        self.ledger.adopt_frames(after.saturating_sub(expected));
        let freed = expected.saturating_sub(after);
        if let Err(e) = self.ledger.unframe(freed) {
            tracing::error!("frames do not add up when {} are freed: {e}", freed.bytes());
        }
        freed
    }

    /// A VM takes part in the domain that it was to take part in, or in none.
    fn shared(&mut self, id: RunId, shared: Shared) {
        let Some(name) = self.name_of(id) else { return };
        if let Some(domain) = shared.left {
            self.event(
                Some(&name),
                format!("can still read the frames of sharing domain {domain}: nothing new is shared there until this VM is off, or until the other VMs have moved to new frames, which takes free memory"),
            );
        }
        let joined = shared.joined.unwrap_or_else(|why| {
            self.event(Some(&name), format!("shares zero pages only: {why}"));
            None
        });
        let off = self.definition_of(id).is_some_and(|vm| vm.memory.sharing == Sharing::Off);
        let Some(run) = self.run_mut(id) else { return };
        run.sharing.moves = run.sharing.moves.saturating_sub(1);
        let scan = run.sharing.scan;
        let (domain, fds): (SharingKind, Vec<OwnedFd>) = match joined {
            Some(Joined { known, limit, key, pool, window }) => {
                let domain = known.id;
                self.effect(Effect::Joins(id, known));
                (SharingKind::Frames { domain, limit, key }, vec![pool, window])
            }
            None if off => (SharingKind::Off, Vec::new()),
            None => (SharingKind::Zero, Vec::new()),
        };
        self.effect(Effect::SendWith(id, ToVmm::Sharing { domain, scan }, fds));
    }

    /// The plane has taken over the frames that a VM held, or could not.
    fn recovered(&mut self, id: RunId, failed: Option<NotRecovered>) {
        self.recovering = self.recovering.saturating_sub(1);
        self.returned = true;
        let Some(run) = self.run_mut(id) else { return };
        run.sharing.recovering = false;
        let Some(NotRecovered { why, most_mapped }) = failed else { return };
        run.sharing.untaken = most_mapped;
        let name = self.name_of(id);
        self.event(
            name.as_ref(),
            format!("the pages that it shares cannot be taken over, and no other VM will share them: {why}"),
        );
    }

    /// Whether the frames that a VM maps are among [`Core::frames`]. Those of a VM that an earlier
    /// daemon started are not until the plane has taken them over.
    pub(crate) fn counts_frames_of(&self, id: RunId) -> bool {
        self.run(id).is_none_or(|run| !run.sharing.recovering)
    }

    /// Whether a domain that a VM has left has neither members nor frames any more. VMs that have
    /// not answered yet may be in domains that are not known.
    pub(crate) fn is_gone(&self, id: DomainId) -> bool {
        let unreachable = |run: &Run| matches!(run.phase, Phase::Unreachable(_));
        !self.mirror.knows(id) && self.recovering == 0 && !self.runs.values().any(|run| unreachable(run))
    }

    /// Has domains do a part of what they put off.
    pub(super) fn tidy_domains(&mut self) {
        if !self.mirror.is_empty() && !std::mem::replace(&mut self.tidying, true) {
            self.effect(Effect::Order(Order::Tidy));
        }
    }

    /// A VMM asks what is known of pages.
    pub(super) fn look_up(
        &mut self,
        id: RunId,
        domain: DomainId,
        question: u32,
        pages: Vec<(PageNo, PageDigest)>,
    ) {
        if pages.len() > MAX_BATCH {
            self.breach(id, "it broke the protocol: it asks of too many pages at once");
            return;
        }
        match self.may_ask(id, domain, pages.len() as u64) {
            Some(most) => {
                let question = Question::LookUp(question);
                self.effect(Effect::Order(Order::Ask { run: id, domain, question, pages, most }));
            }
            None => {
                let found = vec![Found::Busy; pages.len()];
                self.effect(Effect::Send(id, ToVmm::Found { id: question, found }));
            }
        }
    }

    /// A VMM offers content. It has lowered its grant by as many pages: they become frames, or come
    /// back.
    pub(super) fn offer(
        &mut self,
        id: RunId,
        domain: DomainId,
        question: u32,
        pages: Vec<(PageNo, PageDigest)>,
    ) {
        let paid = Pages(pages.len() as u64);
        if pages.len() > WINDOW || self.ledger.pledge(id, paid).is_err() {
            self.breach(
                id,
                "it broke the protocol: it offers more pages than it has, or than a window shows",
            );
            return;
        }
        match self.may_ask(id, domain, Tokens::OFFERED * paid.0) {
            Some(most) => {
                let question = Question::Offer(question);
                self.effect(Effect::Order(Order::Ask { run: id, domain, question, pages, most }));
            }
            None => {
                if let Err(e) = self.ledger.redeem(id, paid, Pages::ZERO) {
                    tracing::error!(run = id.0, "frames do not add up when an offer is refused: {e}");
                }
                self.answer_offer(id, question, vec![None; pages.len()], paid);
            }
        }
    }

    /// Answers an offer. `back` pages of it did not become frames: they are granted again.
    fn answer_offer(&mut self, id: RunId, question: u32, frames: Vec<Option<FrameNo>>, back: Pages) {
        let total = self.ledger.account(id).grant;
        let Some(run) = self.run_mut(id) else { return };
        if let Some(level) = run.paging.level.as_mut().filter(|_| back > Pages::ZERO) {
            *level = level.saturating_add(back);
        }
        self.effect(Effect::Send(id, ToVmm::Offered { id: question, frames }));
        self.effect(Effect::Returned { run: id, total: total.saturating_sub(back) });
        if back > Pages::ZERO {
            self.effect(Effect::Grant { run: id, pages: back, total });
        }
    }

    /// Tells a VMM that hints of it came true. If it does not listen to that domain any more, it
    /// holds nothing of it.
    fn notify(&mut self, id: RunId, domain: DomainId, pages: Vec<(PageNo, FrameNo)>) {
        if self.run(id).is_some_and(|run| run.sharing.part.is_in(domain) && run.takes_part()) {
            self.effect(Effect::Send(id, ToVmm::Share { domain, pages }));
        } else {
            self.unsent(id, domain, pages);
        }
    }

    /// Pages that a VMM will not hear of hold nothing.
    pub(super) fn unsent(&mut self, id: RunId, domain: DomainId, pages: Vec<(PageNo, FrameNo)>) {
        self.effect(Effect::Order(Order::GiveBack { run: id, domain, pages, reason: ReturnReason::Unused }));
    }

    /// A VMM gives references back.
    pub(super) fn give_frames_back(
        &mut self,
        id: RunId,
        domain: DomainId,
        pages: Vec<(PageNo, FrameNo)>,
        reason: ReturnReason,
    ) {
        if pages.len() > MAX_BATCH {
            self.breach(id, "it broke the protocol: it gives too many frames back at once");
            return;
        }
        let now = self.clock.now;
        let rate = self.askers.ask(id, now);
        let Some(run) = self.run_mut(id) else { return };
        // Whether it holds something there the plane knows: after a restart of the daemon these
        // references may be on their way to being taken over, ahead of this.
        run.sharing.tokens.spend(now, rate, pages.len() as u64);
        self.effect(Effect::Order(Order::GiveBack { run: id, domain, pages, reason }));
    }

    /// Whether a VM takes part in the domain that it means, and asks for no more than it may in the
    /// time. Returns how many references it may hold while it is answered.
    fn may_ask(&mut self, id: RunId, domain: DomainId, tokens: u64) -> Option<Pages> {
        let now = self.clock.now;
        let most = size(self.definition_of(id)?).saturating_add(IN_TRANSIT);
        let grant = self.ledger.account(id).grant;
        let rate = self.askers.ask(id, now);
        let run = self.run_mut(id).filter(|run| run.sharing.part.is_in(domain))?;
        let may = run.sharing.tokens.take(now, rate, tokens) && grant <= most;
        may.then(|| most - grant)
    }

    /// Pages of a VM that refer to frames.
    pub(super) fn references(&self, id: RunId) -> Pages {
        self.run(id).map_or(Pages::ZERO, |run| run.sharing.part.references())
    }

    /// A VM's part of the frames of its domains, by references: it is charged for them as for
    /// memory of its own.
    pub(super) fn part(&self, id: RunId) -> Pages {
        self.run(id).map_or(Pages::ZERO, |run| self.mirror.charge(&run.sharing.part))
    }

    /// What a VM is charged: its grant, and its part of frames.
    pub(super) fn charged(&self, id: RunId) -> Pages {
        self.ledger.account(id).grant.saturating_add(self.part(id))
    }

    /// Frames that take machine memory.
    pub(crate) fn frames(&self) -> Pages {
        self.ledger.frames()
    }
}

fn wire(found: plimsoll_sharing::Found) -> Found {
    match found {
        plimsoll_sharing::Found::New => Found::New,
        plimsoll_sharing::Found::Frame(frame) => Found::Frame(frame),
        plimsoll_sharing::Found::Wanted => Found::Wanted,
        plimsoll_sharing::Found::Busy => Found::Busy,
    }
}
