use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::Pages;

use super::order::HeldReferences;
use super::plane::Plane;
use super::registry::{Owner, inode, member};
use super::report::{NotRecovered, Outcome};
use crate::run_id::RunId;

impl HeldReferences {
    /// The most that the VMM may map of frames: each at its place in guest memory, and all of the
    /// pool where they are compared.
    fn most_mapped(&self) -> Pages {
        // Another file, however large, is no pool.
        let is_pool = inode(&self.pool).is_ok_and(|inode| inode == self.domain.id);
        let stat = rustix::fs::fstat(&self.pool).ok().filter(|_| is_pool);
        // The kernel counts blocks of 512 bytes.
        let pool = stat.map_or(0, |stat| stat.st_blocks.cast_unsigned() / 8);
        Pages(pool.saturating_add(self.holds.len() as u64))
    }
}

/// Taking over the frames of an earlier daemon.
///
/// The memory of a frame that no VM reports goes back to the host. So a domain is complete only
/// when each VM that may map its frames has reported. While one of them is unreachable, no frame
/// of the domain is made or freed.
impl Plane {
    /// A VM that has not answered yet may map frames of the domains `maps`; `None`: of any.
    pub(super) fn discovered(&mut self, run: RunId, former: Vec<DomainId>, maps: Option<Vec<DomainId>>) {
        former.into_iter().for_each(|id| self.domains.left(id, run));
        self.unreported.add(run, maps);
    }

    /// Takes over what a VM holds.
    pub(super) fn recover(&mut self, run: RunId, size: Pages, references: &HeldReferences) -> Outcome {
        let id = references.domain.id;
        let owner = references.domain.name.clone().map_or(Owner::Run(run), Owner::Named);
        if let Err(e) = self.domains.recover(id, owner, &references.pool, run, size) {
            let failed = NotRecovered { why: format!("{e:#}"), most_mapped: references.most_mapped() };
            return Outcome::Recovered { run, result: Err(failed) };
        }
        self.is_in(run, id);
        let held = self.domains.get_mut(id).map(|domain| domain.hold(member(run), &references.holds));
        let (held, claimed) = (held.unwrap_or_default().0, references.holds.len());
        tracing::info!(run = run.0, domain = id.0, held, claimed, "frames are taken over");
        Outcome::Recovered { run, result: Ok(()) }
    }

    /// A VM that was discovered has reported its frames, or is gone.
    pub(super) fn answered(&mut self, run: RunId, former: Vec<DomainId>) {
        former.into_iter().for_each(|id| self.domains.left(id, run));
        let reported = self.unreported.take(run);
        let complete: Vec<DomainId> = self
            .domains
            .all()
            .map(|(id, _)| id)
            .filter(|id| reported.name(*id) && !self.unreported.name(*id))
            .collect();
        for id in complete {
            if let Some(domain) = self.domains.get_mut(id) {
                domain.recovered();
            }
        }
    }
}
