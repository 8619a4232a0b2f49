use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use plimsoll_policy::Gain;
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::ToVmm;
use plimsoll_protocol::sharing::{DomainId, Found, MAX_BATCH, ScanBudget, Sharing, SharingKind, WINDOW};
use plimsoll_sharing::{Domain, MemberStats, Offered, Window};
use plimsoll_units::{FrameNo, PageNo, Pages};

use super::run::Run;
use super::tokens::Tokens;
use super::{Core, Effect, RunId, size};
use crate::domains::{self, Known, Owner, member};

/// References that a VM may have beyond what its size and its grant explain: those of pages that it
/// has merged and not returned yet. Less, and an honest VM that merges fast would be refused; more,
/// and a hostile one could hold as many frames that it has no page for.
const IN_TRANSIT: Pages = Pages((32 << 20) / plimsoll_units::PAGE_SIZE);

/// Memory in holes between frames, which a correct VMM never touches, before it is looked for: that
/// takes time.
const HOLES: Pages = Pages(64);

/// Domains that have something to do in one control period: each takes a millisecond or two of the
/// loop's thread. With more, a host whose VMs all end at once would not answer meanwhile.
const TIDIED: usize = 4;

/// Page sharing: the daemon's side. What VMMs say of pages is checked against what the daemon has
/// named to them, and memory moves between grants and frames in the ledger as frames come and go.
impl Core {
    /// Has a VM take part in the domain that its definition names, and tells it. What it holds of
    /// another one it gives back by and by.
    pub(super) fn share(&mut self, id: RunId) {
        let Some(name) = self.runs.get(&id).cloned() else { return };
        let Some(definition) = self.vm(&name).map(|vm| &vm.record.definition) else { return };
        let size = size(definition);
        let (kind, owner, limit) = match definition.memory.sharing.clone() {
            Sharing::Off => (SharingKind::Off, None, Pages::ZERO),
            Sharing::Zero => (SharingKind::Zero, None, Pages::ZERO),
            Sharing::Own => (SharingKind::Zero, Some(Owner::Run(id)), size),
            Sharing::With(domain) => (SharingKind::Zero, Some(Owner::Named(domain)), self.ledger.budget()),
        };
        self.depart(id, owner.as_ref());
        let told = owner.map(|owner| self.join(id, owner, size, limit)).transpose();
        let told = told.unwrap_or_else(|e| {
            self.event(Some(&name), format!("shares zero pages only: {e:#}"));
            None
        });
        let (domain, fds) = told.unwrap_or((kind, Vec::new()));
        let Some(run) = self.run_mut(id) else { return };
        let scan = run.sharing.scan;
        self.effect(Effect::SendWith(id, ToVmm::Sharing { domain, scan }, fds));
    }

    /// Has a VM take part in the domain of `owner`, unless it does already; what it is to be told
    /// of it.
    fn join(
        &mut self,
        id: RunId,
        owner: Owner,
        size: Pages,
        limit: Pages,
    ) -> anyhow::Result<(SharingKind, Vec<OwnedFd>)> {
        let window = Window::new(WINDOW)?;
        let domain = match self.run(id).and_then(|run| run.sharing.domain) {
            Some(domain) => domain,
            None => self.domains.join(owner, id, size, limit)?,
        };
        if let Some(run) = self.run_mut(id) {
            run.sharing.domain = Some(domain);
        }
        let pool = self.domains.get(domain).map(Domain::pool).transpose();
        let fds = pool.and_then(|pool| Ok((pool, window.for_member()?)));
        let (Some(known), Ok((Some(pool), window_for_vmm))) = (self.domains.known(domain), fds) else {
            self.depart(id, None);
            anyhow::bail!("there are no descriptors for the frames: raise the limit of open files");
        };
        let limit = self.domains.get(domain).map_or(Pages::ZERO, |domain| domain.stats().limit);
        if let Some(run) = self.run_mut(id) {
            run.sharing.window = Some(window);
        }
        self.effect(Effect::Joins(id, known));
        Ok((SharingKind::Frames { domain, limit }, vec![pool, window_for_vmm]))
    }

    /// A VM leaves the domain that it takes part in, unless it is that of `stays` and goes on.
    fn depart(&mut self, id: RunId, stays: Option<&Owner>) {
        let Some(current) = self.run(id).and_then(|run| run.sharing.domain) else { return };
        if self.domains.owner(current) != stays {
            self.domains.left(current, id);
            self.tell_of_leaving(id, current);
        } else if !self.moves_on(id) {
            return;
        }
        if let Some(run) = self.run_mut(id) {
            run.sharing.gain.forget();
            run.sharing.leaving = run.sharing.domain.take();
        }
        self.leave_if_done(id);
        self.urgent = true;
    }

    fn tell_of_leaving(&mut self, id: RunId, domain: DomainId) {
        let others = self.domains.get(domain).is_some_and(|domain| domain.members().any(|m| m != member(id)));
        let Some(Known { name: Some(domain), .. }) = self.domains.known(domain).filter(|_| others) else {
            return;
        };
        let name = self.runs.get(&id).cloned();
        self.event(
            name.as_ref(),
            format!("can still read what is shared in domain {domain}: nothing new is shared there until it is off, or until the others have moved to new frames, which takes free memory"),
        );
    }

    /// Has VMs leave domains that others have left, for new ones of the same names, as far as there
    /// is room for that.
    pub(super) fn move_on(&mut self) {
        let runs: Vec<RunId> = self.running().map(|(_, run)| run.id).collect();
        for id in runs {
            if self.moves_on(id) {
                self.share(id);
            }
        }
    }

    /// Whether a VM is in a domain that is closed, and the host has room for it to leave: until it
    /// shares its pages anew they are its own. Without room it keeps what it shares, and shares
    /// nothing new: a host that is short of memory does not become shorter.
    fn moves_on(&self, id: RunId) -> bool {
        let settled = |run: &&Run| run.takes_part() && !run.is_leaving();
        let Some(domain) = self.run(id).filter(settled).and_then(|run| run.sharing.domain) else {
            return false;
        };
        let needed = self.domains.of(domain, id).references;
        let on_its_way = self.running().filter(|(_, run)| run.is_leaving()).map(|(_, run)| run.id);
        let promised: Pages = on_its_way.map(|run| self.references(run)).sum();
        let spare =
            self.ledger.free().saturating_sub(self.settings.thresholds.clear).saturating_sub(promised);
        self.domains.is_closed(domain) && (needed == Pages::ZERO || needed <= spare)
    }

    /// A VM is gone, and with it all that it held, and all that it could read.
    pub(super) fn leave(&mut self, id: RunId) {
        self.domains.ended(id);
        let Some(run) = self.run_mut(id) else { return };
        let domains = [run.sharing.domain.take(), run.sharing.leaving.take()];
        for domain in domains.into_iter().flatten() {
            self.leave_one(id, domain);
        }
    }

    fn leave_one(&mut self, id: RunId, domain: DomainId) {
        self.frees(domain, |domain| domain.leave(member(id)));
        self.domains.drop_empty(domain);
    }

    fn leave_if_done(&mut self, id: RunId) {
        let Some(former) = self.run(id).and_then(|run| run.sharing.leaving) else { return };
        if self.domains.of(former, id).references > Pages::ZERO {
            return;
        }
        self.leave_one(id, former);
        if let Some(run) = self.run_mut(id) {
            run.sharing.leaving = None;
        }
    }

    /// Does something that may free frames of a domain, or find memory in it that nobody has
    /// counted. How many it freed: the ledger has them back.
    pub(super) fn frees<R>(
        &mut self,
        id: DomainId,
        what: impl FnOnce(&mut Domain) -> R,
    ) -> Option<(R, Pages)> {
        let before = self.domains.frames_of(id);
        let result = what(self.domains.get_mut(id)?);
        let after = self.domains.frames_of(id);
        self.ledger.adopt_frames(after.saturating_sub(before));
        let freed = before.saturating_sub(after);
        if let Err(e) = self.ledger.unframe(freed) {
            tracing::error!("frames do not add up: {e}");
        }
        Some((result, freed))
    }

    /// Does what domains put off, of a few that have something to do at a time, and has them take
    /// back what somebody made of holes in their files.
    pub(super) fn tidy_domains(&mut self) {
        let ids: Vec<DomainId> = self.domains.all().map(|(id, _)| id).collect();
        // After those that had their turn.
        let next = ids.iter().position(|id| Some(*id) > self.tidied).unwrap_or(0);
        let mut busy = 0;
        for &id in ids[next..].iter().chain(&ids[..next]) {
            if busy == TIDIED {
                self.urgent = true;
                break;
            }
            busy += usize::from(self.domains.get(id).is_some_and(Domain::has_chores));
            self.urgent |= self.frees(id, |domain| domain.tidy().more).is_some_and(|(more, _)| more);
            self.tidied = Some(id);
            self.domains.drop_empty(id);
            let Some(domain) = self.domains.get_mut(id) else { continue };
            if domain.excess().is_ok_and(|excess| excess > HOLES) {
                tracing::warn!(?id, "somebody fills holes between frames: that is taken back");
                domain.scrub();
            }
        }
    }

    /// A VMM asks what is known of pages.
    pub(super) fn look_up(&mut self, id: RunId, domain: DomainId, question: u32, pages: &[(PageNo, u64)]) {
        if pages.len() > MAX_BATCH {
            self.breach(id, "it broke the protocol: it asks of too many pages at once");
            return;
        }
        let found = match self.member_of(id, domain, pages.len() as u64) {
            Some(domain) => domain.look_up(member(id), pages).into_iter().map(found).collect(),
            None => vec![Found::Busy; pages.len()],
        };
        self.effect(Effect::Send(id, ToVmm::Found { id: question, found }));
    }

    /// A VMM offers content. It has lowered its grant by as many pages: they become frames, or come
    /// back.
    pub(super) fn offer(
        &mut self,
        id: RunId,
        name: &VmName,
        domain: DomainId,
        question: u32,
        pages: &[(PageNo, u64)],
    ) {
        let paid = Pages(pages.len() as u64);
        let before = self.ledger.account(id).grant;
        if pages.len() > WINDOW || paid > before {
            self.breach(
                id,
                "it broke the protocol: it offers more pages than it has, or than a window shows",
            );
            return;
        }
        let frames = self.domains.frames_of(domain);
        let window = self.run_mut(id).and_then(|run| run.sharing.window.take());
        let offered = match (&window, self.member_of(id, domain, Tokens::OFFERED * paid.0)) {
            (Some(window), Some(domain)) => {
                let mut shown = window.shown();
                domain.offer(member(id), pages, |i, page| page.copy_from_slice(shown.page(i)))
            }
            _ => Offered { frames: vec![None; pages.len()], ..Offered::default() },
        };
        if let Some(run) = self.run_mut(id) {
            run.sharing.window = window;
        }
        let created = self.domains.frames_of(domain).saturating_sub(frames).min(paid);
        if let Err(e) = self.ledger.frame(id, created) {
            tracing::error!(vm = %name, "frames do not add up: {e}");
        }
        if let Some(e) = offered.error {
            self.event(Some(name), format!("frames cannot be written: {e}: the host may be out of memory"));
        }
        self.effect(Effect::Send(id, ToVmm::Offered { id: question, frames: offered.frames }));
        self.effect(Effect::Returned { run: id, total: before - paid });
        if created < paid {
            self.granted(id, paid - created);
        }
        self.notify(domain, offered.notices);
    }

    /// Tells of a grant that the ledger has already.
    fn granted(&mut self, id: RunId, pages: Pages) {
        let total = self.ledger.account(id).grant;
        if let Some(run) = self.run_mut(id)
            && let Some(level) = &mut run.paging.level
        {
            *level = level.saturating_add(pages);
        }
        self.effect(Effect::Grant { run: id, pages, total });
    }

    /// Tells those whose hints came true. Who does not listen to that domain any more gets nothing
    /// of it.
    fn notify(&mut self, domain: DomainId, notices: Vec<(plimsoll_sharing::MemberId, PageNo, FrameNo)>) {
        let mut told: BTreeMap<RunId, Vec<(PageNo, FrameNo)>> = BTreeMap::new();
        for (member, page, frame) in notices {
            told.entry(domains::run(member)).or_default().push((page, frame));
        }
        for (id, pages) in told {
            if self.run(id).is_some_and(|run| run.sharing.domain == Some(domain) && run.takes_part()) {
                self.effect(Effect::Send(id, ToVmm::Share { domain, pages }));
            } else {
                self.unsent(id, domain, &pages);
            }
        }
    }

    /// Pages that a VMM will not hear of hold nothing.
    pub(super) fn unsent(&mut self, id: RunId, domain: DomainId, pages: &[(PageNo, FrameNo)]) {
        self.frees(domain, |domain| domain.give_back(member(id), pages, false));
        self.leave_if_done(id);
    }

    /// A VMM gives references back.
    pub(super) fn give_frames_back(
        &mut self,
        id: RunId,
        domain: DomainId,
        pages: &[(PageNo, FrameNo)],
        mismatched: bool,
    ) {
        if pages.len() > MAX_BATCH {
            self.breach(id, "it broke the protocol: it gives too many frames back at once");
            return;
        }
        let now = self.clock.now;
        let rate = self.askers.ask(id, now);
        let Some(run) = self.run_mut(id) else { return };
        if ![run.sharing.domain, run.sharing.leaving].contains(&Some(domain)) {
            // What it held there it holds no more.
            return;
        }
        run.sharing.tokens.spend(now, rate, pages.len() as u64);
        let given = self.frees(domain, |domain| domain.give_back(member(id), pages, mismatched));
        self.leave_if_done(id);
        if given.is_some_and(|(_, freed)| freed > Pages::ZERO) {
            self.give_all();
        }
    }

    /// The domain that a VM means, if it takes part there, asks for no more than it may in the
    /// time, and holds no more than it can.
    fn member_of(&mut self, id: RunId, domain: DomainId, tokens: u64) -> Option<&mut Domain> {
        let now = self.clock.now;
        let held = self.ledger.account(id).grant + self.references(id);
        let size = self.runs.get(&id).and_then(|name| self.vm(name)).map(|vm| size(&vm.record.definition))?;
        let rate = self.askers.ask(id, now);
        let run = self.run_mut(id).filter(|run| run.sharing.domain == Some(domain))?;
        let may = run.sharing.tokens.take(now, rate, tokens) && held <= size.saturating_add(IN_TRANSIT);
        if may { self.domains.get_mut(domain) } else { None }
    }

    /// Pages of a VM that refer to frames.
    pub(super) fn references(&self, id: RunId) -> Pages {
        self.memberships(id).map(|stats| stats.references).sum()
    }

    /// A VM's part of the frames of its domains, by references: it is charged for them as for
    /// memory of its own.
    pub(super) fn part(&self, id: RunId) -> Pages {
        self.memberships(id).map(|stats| stats.charge).sum()
    }

    /// What a VM is charged: its grant, and its part of frames.
    pub(super) fn charged(&self, id: RunId) -> Pages {
        self.ledger.account(id).grant.saturating_add(self.part(id))
    }

    fn memberships(&self, id: RunId) -> impl Iterator<Item = MemberStats> {
        let sharing = self.run(id).map(|run| &run.sharing);
        let domains = sharing.map(|sharing| [sharing.domain, sharing.leaving]).into_iter().flatten();
        domains.flatten().map(move |domain| self.domains.of(domain, id))
    }

    /// Frames that take machine memory.
    pub(crate) fn frames(&self) -> Pages {
        self.ledger.frames()
    }
}

fn found(found: plimsoll_sharing::Found) -> Found {
    match found {
        plimsoll_sharing::Found::New => Found::New,
        plimsoll_sharing::Found::Frame(frame) => Found::Frame(frame),
        plimsoll_sharing::Found::Wanted => Found::Wanted,
        plimsoll_sharing::Found::Busy => Found::Busy,
    }
}

/// A VM's part in sharing.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// The domain whose frames it may come to refer to.
    pub(super) domain: Option<DomainId>,
    /// The one that it was in before, as long as it refers to frames there.
    pub(super) leaving: Option<DomainId>,
    /// What it may map of frames that could not be taken over from an earlier daemon.
    pub(super) untaken: Pages,
    window: Option<Window>,
    /// How much it was last told to look for pages.
    pub(super) scan: ScanBudget,
    /// What that has lately brought.
    pub(super) gain: Gain,
    tokens: Tokens,
}

impl Run {
    /// Whether it still holds frames of a domain that it was in before.
    pub(super) fn is_leaving(&self) -> bool {
        self.sharing.leaving.is_some()
    }
}
