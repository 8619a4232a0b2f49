use std::collections::BTreeMap;

use plimsoll_protocol::sharing::DomainId;
use plimsoll_sharing::Stats;
use plimsoll_units::Pages;

use crate::domains::{DomainState, Part};

/// What the core knows of sharing domains: what the last report said of each.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    domains: BTreeMap<DomainId, DomainState>,
    /// Frames of all of them.
    frames: Pages,
}

impl Mirror {
    /// A domain is and has this now; `None`: it is gone.
    pub(super) fn set(&mut self, id: DomainId, state: Option<DomainState>) {
        let after = state.as_ref().map_or(Pages::ZERO, |state| state.stats.frames);
        let before = match state {
            Some(state) => self.domains.insert(id, state),
            None => self.domains.remove(&id),
        };
        self.frames -= before.map_or(Pages::ZERO, |state| state.stats.frames);
        self.frames += after;
    }

    /// Frames of all domains that take machine memory.
    pub(super) fn frames(&self) -> Pages {
        self.frames
    }

    /// Frames of a domain that take machine memory.
    pub(super) fn frames_of(&self, id: DomainId) -> Pages {
        self.domains.get(&id).map_or(Pages::ZERO, |state| state.stats.frames)
    }

    pub(super) fn is_closed(&self, id: DomainId) -> bool {
        self.domains.get(&id).is_some_and(|state| state.closed)
    }

    pub(super) fn knows(&self, id: DomainId) -> bool {
        self.domains.contains_key(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (DomainId, &DomainState)> {
        self.domains.iter().map(|(id, state)| (*id, state))
    }

    /// What a VM is charged of the frames that it shares: its part by references, rounded up for
    /// each domain.
    pub(super) fn charge(&self, part: &Part) -> Pages {
        let of = |id| self.domains.get(&id).map(|state| state.stats).unwrap_or_default();
        part.memberships().map(|membership| charge(&of(membership.id), membership.references)).sum()
    }
}

fn charge(stats: &Stats, references: Pages) -> Pages {
    let used = u128::from(stats.frames.saturating_sub(stats.lingering).0);
    let charge = (used * u128::from(references.0)).div_ceil(u128::from(stats.references.0.max(1)));
    Pages(u64::try_from(charge).unwrap_or(u64::MAX))
}
