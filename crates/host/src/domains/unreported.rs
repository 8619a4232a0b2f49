use plimsoll_protocol::sharing::DomainId;

use crate::run_id::RunId;

/// VMs that have not said yet which frames they map, and the domains of these frames; `None`: any.
#[derive(Debug, Default)]
pub(super) struct Unreported(Vec<(Option<DomainId>, RunId)>);

impl Unreported {
    /// A VM may map frames of these domains; `None`: of any.
    pub(super) fn add(&mut self, run: RunId, domains: Option<Vec<DomainId>>) {
        match domains {
            Some(domains) => self.0.extend(domains.into_iter().map(|id| (Some(id), run))),
            None => self.0.push((None, run)),
        }
    }

    /// Takes out what is known of a VM.
    pub(super) fn take(&mut self, run: RunId) -> Self {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(_, of)| *of == run);
        self.0 = left;
        Self(taken)
    }

    /// Whether a VM may map frames of this domain.
    pub(super) fn name(&self, domain: DomainId) -> bool {
        self.0.iter().any(|(named, _)| named.is_none_or(|named| named == domain))
    }
}
