use std::os::fd::OwnedFd;

use plimsoll_protocol::DomainName;
use plimsoll_protocol::sharing::{DomainId, Sharing};
use plimsoll_units::{FrameNo, PageNo, Pages};

use super::{Core, RunId};
use crate::domains::{Known, Owner, member};

/// What a VM that an earlier daemon started says of the frames that it holds.
#[derive(Debug)]
pub(crate) struct Stock {
    /// The earlier daemon wrote it down.
    pub(crate) domain: Known,
    /// By which the VMM reads its frames: it is the file of that number.
    pub(crate) pool: OwnedFd,
    /// At most as many as the VM has pages.
    pub(crate) holds: Vec<(PageNo, FrameNo)>,
}

impl Stock {
    /// The most that the VMM may map of frames: each at its place in guest memory, and all of the
    /// pool where they are compared.
    fn most_mapped(&self) -> Pages {
        // The kernel counts blocks of 512 bytes.
        let pool = rustix::fs::fstat(&self.pool).map_or(0, |stat| stat.st_blocks.cast_unsigned() / 8);
        Pages(pool.saturating_add(self.holds.len() as u64))
    }
}

/// Taking over the frames of an earlier daemon.
///
/// A frame that no VM reports is nobody's, and its memory goes back to the host. So a domain is
/// whole only when all VMs have been heard that may map its frames. As long as one of them runs and
/// is unreachable, nothing is made or freed in its domains.
impl Core {
    /// Takes over what a VM holds.
    pub(super) fn take_over(&mut self, id: RunId, size: Pages, stock: &Stock) {
        let domain = stock.domain.id;
        let owner = stock.domain.name.clone().map_or(Owner::Run(id), Owner::Named);
        if let Err(e) = self.domains.recover(domain, owner, &stock.pool, id, size) {
            let name = self.runs.get(&id).cloned();
            self.event(
                name.as_ref(),
                format!("what it shares cannot be taken over, and is shared no more: {e:#}"),
            );
            let untaken = stock.most_mapped();
            if let Some(run) = self.run_mut(id) {
                run.sharing.untaken = untaken;
            }
            return;
        }
        if let Some(run) = self.run_mut(id) {
            run.sharing.domain = Some(domain);
        }
        let held = self.frees(domain, |domain| domain.hold(member(id), &stock.holds));
        let held = held.map_or(Pages::ZERO, |(held, _)| held);
        tracing::info!(
            run = id.0,
            ?domain,
            held = held.0,
            claimed = stock.holds.len(),
            "frames are taken over"
        );
    }

    /// Of the domains that a VM was told of, it left those that its definition does not name.
    pub(super) fn recall_former<'a>(&mut self, id: RunId, told: impl Iterator<Item = &'a Known>) {
        let Some(vm) = self.runs.get(&id).and_then(|name| self.vm(name)) else { return };
        let sharing = vm.record.definition.memory.sharing.clone();
        let stays = |name: &DomainName| matches!(&sharing, Sharing::With(domain) if domain == name);
        for known in told {
            if known.name.as_ref().is_some_and(|name| !stays(name)) {
                self.domains.left(known.id, id);
            }
        }
    }

    /// A VM that has not been heard may map frames of these domains; `None`: of any.
    pub(super) fn cannot_hear(&mut self, id: RunId, domains: Option<&[Known]>) {
        match domains {
            Some(domains) => self.unheard.extend(domains.iter().map(|domain| (Some(domain.id), id))),
            None => self.unheard.push((None, id)),
        }
    }

    /// A VM that could not be heard has said what it maps, or is gone.
    pub(super) fn heard(&mut self, id: RunId) {
        let (heard, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unheard).into_iter().partition(|(_, run)| *run == id);
        self.unheard = left;
        let any = heard.iter().any(|(domain, _)| domain.is_none());
        let awaited = |domain: &DomainId| any || heard.iter().any(|(heard, _)| *heard == Some(*domain));
        let domains: Vec<DomainId> = self.domains.all().map(|(id, _)| id).filter(awaited).collect();
        domains.into_iter().for_each(|domain| self.complete(domain));
    }

    /// Everybody who may map frames of a domain has been heard, unless somebody cannot be.
    fn complete(&mut self, domain: DomainId) {
        if self.unheard.iter().all(|(unheard, _)| unheard.is_some_and(|unheard| unheard != domain)) {
            self.frees(domain, |domain| domain.recovered());
        }
    }
}
