use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use anyhow::Context;
use plimsoll_protocol::DomainName;
use plimsoll_protocol::sharing::{DomainId, WINDOW};
use plimsoll_sharing::{Domain, Found, Offered, Window};
use plimsoll_units::{FrameNo, PageDigest, PageNo, Pages, ReturnReason};

use super::part::{Membership, Part};
use super::registry::{self, Domains, Owner, member};
use super::report::{Joined, Outcome, Report, Shared};
use super::unreported::Unreported;
use super::{Order, Question};
use crate::run_id::RunId;

/// All domains of the host, and the VMs that take part in them.
#[derive(Debug, Default)]
pub(crate) struct Plane {
    pub(super) domains: Domains,
    vms: BTreeMap<RunId, Vm>,
    pub(super) unreported: Unreported,
    /// The domain that was tidied last.
    pub(super) tidied: Option<DomainId>,
    /// VMs whose part has changed since the last report.
    changed: BTreeSet<RunId>,
}

/// A VM that takes part in a domain, or still refers to frames of one.
#[derive(Debug, Default)]
struct Vm {
    domain: Option<DomainId>,
    leaving: Option<DomainId>,
    window: Option<Window>,
}

impl Plane {
    /// Carries out an order, and reports what came of it.
    pub(crate) fn carry_out(&mut self, order: Order) -> Report {
        let asker = order.asker();
        let outcome = match order {
            Order::Share { run, owner, size, limit, room } => {
                Outcome::Shared { run, shared: self.share(run, owner, size, limit, room) }
            }
            Order::Ask { run, domain, question: Question::LookUp(question), pages, most } => {
                Outcome::Found { run, question, found: self.look_up(run, domain, &pages, most) }
            }
            Order::Ask { run, domain, question: Question::Offer(question), pages, most } => {
                self.offer(run, domain, question, &pages, most)
            }
            Order::GiveBack { run, domain, pages, reason } => {
                self.give_back(run, domain, &pages, reason);
                Outcome::Done
            }
            Order::Discovered { run, former, maps } => {
                self.discovered(run, former, maps);
                Outcome::Done
            }
            Order::Recover { run, size, references } => self.recover(run, size, &references),
            Order::Answered { run, former } => {
                self.answered(run, former);
                Outcome::Done
            }
            Order::Ended(run) => {
                self.ended(run);
                Outcome::Done
            }
            Order::Tidy => Outcome::Tidied { more: self.tidy() },
        };
        let domains =
            self.domains.take_changed().into_iter().map(|id| (id, self.domains.state(id))).collect();
        let parts = std::mem::take(&mut self.changed).into_iter().map(|run| (run, self.part(run))).collect();
        Report { asker, outcome, domains, parts }
    }

    fn part(&self, run: RunId) -> Part {
        let Some(vm) = self.vms.get(&run) else { return Part::default() };
        let membership = |id| {
            let stats = self.domains.of(id, run);
            Membership { id, references: stats.references, doubted: stats.doubted }
        };
        Part { domain: vm.domain.map(membership), leaving: vm.leaving.map(membership) }
    }

    /// A VM's state, which the next report will tell.
    fn vm(&mut self, run: RunId) -> &mut Vm {
        self.changed.insert(run);
        self.vms.entry(run).or_default()
    }

    /// Notes that `run` takes part in a domain.
    pub(super) fn is_in(&mut self, run: RunId, domain: DomainId) {
        self.vm(run).domain = Some(domain);
    }

    fn share(&mut self, run: RunId, owner: Option<Owner>, size: Pages, limit: Pages, room: Pages) -> Shared {
        let left = self.depart(run, owner.as_ref(), room);
        let joined = owner.map(|owner| self.join(run, owner, size, limit)).transpose();
        Shared { joined: joined.map_err(|e| format!("{e:#}")), left }
    }

    /// Has a VM take part in the domain of `owner`, unless it takes part in one already.
    fn join(&mut self, run: RunId, owner: Owner, size: Pages, limit: Pages) -> anyhow::Result<Joined> {
        let before = self.vm(run).domain;
        let id = match before {
            Some(id) => id,
            None => self.domains.join(owner, run, size, limit)?,
        };
        self.is_in(run, id);
        let joined = self.descriptors(run, id);
        if joined.is_err() && before.is_none() {
            // Its VMM was not told of the domain.
            self.vm(run).domain = None;
            self.leave(run, id);
        }
        joined
    }

    /// What the VMM gets for its domain: the frames, and a new window.
    fn descriptors(&mut self, run: RunId, id: DomainId) -> anyhow::Result<Joined> {
        const NONE: &str = "there are no descriptors for the frames: raise the limit of open files";
        let window = Window::new(WINDOW).context(NONE)?;
        let domain = self.domains.get(id).context("its domain is gone")?;
        let (pool, limit): (OwnedFd, Pages) = (domain.pool().context(NONE)?, domain.stats().limit);
        let key = domain.digest_key();
        let window_for_vmm = window.for_member().context(NONE)?;
        let known = self.domains.known(id).context("its domain is gone")?;
        self.vm(run).window = Some(window);
        Ok(Joined { known, limit, key, pool, window: window_for_vmm })
    }

    /// A VM leaves the domain that it takes part in, unless it is that of `stays` and goes on.
    /// Returns the domain that the VM can still read while others share in it.
    fn depart(&mut self, run: RunId, stays: Option<&Owner>, room: Pages) -> Option<DomainName> {
        let vm = self.vms.get(&run)?;
        let current = vm.domain?;
        if vm.leaving.is_some() {
            // The core lets no VM leave two domains at once.
            tracing::error!(run = run.0, "it is still leaving a domain, and stays in the next one");
            return None;
        }
        let mut shared_by_others = None;
        if self.domains.owner(current) != stays {
            self.domains.left(current, run);
            let others = self.domains.get(current).is_some_and(|d| d.members().any(|m| m != member(run)));
            shared_by_others = self.domains.known(current).filter(|_| others).and_then(|known| known.name);
        } else if !self.leaves_closed(run, current, room) {
            return None;
        }
        let vm = self.vm(run);
        vm.leaving = vm.domain.take();
        self.leave_if_done(run);
        shared_by_others
    }

    /// Whether a VM moves to another domain of the same name: its own is closed, and it refers to
    /// no more frames than the host has `room` for. Its pages are its own until it shares them
    /// anew.
    fn leaves_closed(&self, run: RunId, current: DomainId, room: Pages) -> bool {
        self.domains.is_closed(current) && self.domains.of(current, run).references <= room
    }

    /// A VM's process is gone, and with it all that it held, and all that it could read.
    fn ended(&mut self, run: RunId) {
        self.domains.ended(run);
        if let Some(vm) = self.vms.remove(&run) {
            [vm.domain, vm.leaving].into_iter().flatten().for_each(|id| self.leave(run, id));
        }
        self.answered(run, Vec::new());
    }

    fn leave(&mut self, run: RunId, id: DomainId) {
        if let Some(domain) = self.domains.get_mut(id) {
            domain.leave(member(run));
        }
        self.domains.drop_empty(id);
    }

    /// Ends the membership in the domain that a VM is leaving, once it refers to no frames there.
    fn leave_if_done(&mut self, run: RunId) {
        let Some(id) = self.vms.get(&run).and_then(|vm| vm.leaving) else { return };
        if self.domains.of(id, run).references > Pages::ZERO {
            return;
        }
        self.leave(run, id);
        self.vm(run).leaving = None;
    }

    fn look_up(
        &mut self,
        run: RunId,
        domain: DomainId,
        pages: &[(PageNo, PageDigest)],
        most: Pages,
    ) -> Vec<Found> {
        match self.member_of(run, domain, most) {
            Some(domain) => domain.look_up(member(run), pages),
            None => vec![Found::Busy; pages.len()],
        }
    }

    fn offer(
        &mut self,
        run: RunId,
        id: DomainId,
        question: u32,
        pages: &[(PageNo, PageDigest)],
        most: Pages,
    ) -> Outcome {
        let before = self.domains.frames_of(id);
        let window = self.vm(run).window.take();
        let offered = match (&window, self.member_of(run, id, most)) {
            (Some(window), Some(domain)) => {
                let mut shown = window.shown();
                domain.offer(member(run), pages, |i, page| page.copy_from_slice(shown.page(i)))
            }
            _ => Offered { frames: vec![None; pages.len()], ..Offered::default() },
        };
        self.vm(run).window = window;
        let mut notices: BTreeMap<RunId, Vec<(PageNo, FrameNo)>> = BTreeMap::new();
        for (member, page, frame) in offered.notices {
            notices.entry(registry::run(member)).or_default().push((page, frame));
        }
        self.changed.extend(notices.keys());
        Outcome::Offered {
            run,
            domain: id,
            question,
            frames: offered.frames,
            created: self.domains.frames_of(id).saturating_sub(before),
            notices: notices.into_iter().collect(),
            error: offered.error,
        }
    }

    /// Ends references. A VM that is no member holds none.
    fn give_back(&mut self, run: RunId, id: DomainId, pages: &[(PageNo, FrameNo)], reason: ReturnReason) {
        let is_member = |vm: &Vm| vm.domain == Some(id) || vm.leaving == Some(id);
        if !self.vms.get(&run).is_some_and(is_member) {
            return;
        }
        self.changed.insert(run);
        if let Some(domain) = self.domains.get_mut(id) {
            domain.give_back(member(run), pages, reason);
        }
        self.leave_if_done(run);
    }

    /// The domain that a VM means, if it takes part there and refers to at most `most` frames.
    fn member_of(&mut self, run: RunId, id: DomainId, most: Pages) -> Option<&mut Domain> {
        let part = self.part(run);
        if !part.is_in(id) || part.references() > most {
            return None;
        }
        self.changed.insert(run);
        self.domains.get_mut(id)
    }

    /// Frames of all domains that take machine memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn frames(&self) -> Pages {
        self.domains.frames()
    }

    /// Domains that have put something off.
    #[cfg(test)]
    pub(crate) fn untidy(&self) -> usize {
        let domains = self.domains.all().map(|(_, owned)| &owned.domain);
        domains.filter(|domain| domain.has_deferred_work()).count()
    }
}
