use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::Pages;

/// A VM's part in sharing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The domain whose frames it may come to refer to.
    pub(crate) domain: Option<Membership>,
    /// The domain that it was in before, as long as it refers to frames there.
    pub(crate) leaving: Option<Membership>,
}

/// What a VM has of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) id: DomainId,
    /// Its pages that refer to a frame.
    pub(crate) references: Pages,
    /// Too many of its frames proved false lately: it is not answered for now.
    pub(crate) doubted: bool,
}

impl Part {
    /// The domains that it refers to frames of.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = Membership> + use<> {
        [self.domain, self.leaving].into_iter().flatten()
    }

    /// Its pages that refer to frames.
    pub(crate) fn references(&self) -> Pages {
        self.memberships().map(|membership| membership.references).sum()
    }

    /// Whether it takes part in this domain and is not leaving it.
    pub(crate) fn is_in(&self, domain: DomainId) -> bool {
        self.domain.is_some_and(|membership| membership.id == domain)
    }

    /// Whether it refers to frames of a domain that it was in before.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }
}
