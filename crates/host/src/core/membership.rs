use plimsoll_policy::Gain;
use plimsoll_protocol::sharing::ScanBudget;
use plimsoll_units::Pages;

use super::tokens::Tokens;
use crate::domains::Part;

/// A VM's part in sharing, as the core knows it, and its budgets.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    /// As the last report said.
    pub(super) part: Part,
    /// Orders under way that may move it to another domain.
    pub(super) moves: u32,
    /// The plane has yet to take over the frames that it holds.
    pub(super) recovering: bool,
    /// What it may map of frames that could not be taken over from an earlier daemon.
    pub(super) untaken: Pages,
    /// How much it was last told to look for pages.
    pub(super) scan: ScanBudget,
    /// What that has lately brought.
    pub(super) gain: Gain,
    pub(super) tokens: Tokens,
}

impl Membership {
    /// Whether it still holds frames of a domain that it was in before, or may come to.
    pub(super) fn is_moving(&self) -> bool {
        self.moves > 0 || self.part.is_leaving()
    }
}
