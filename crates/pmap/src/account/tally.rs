use plimsoll_units::Pages;

/// What one chunk counts for in the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pages that the chunk may have resident.
    pub(crate) backed: Pages,
    /// Pages that the guest has given to the balloon.
    pub(crate) ballooned: Pages,
    /// Pages in the store.
    pub(crate) compressed: Pages,
    /// Pages in the swap, or on their way there.
    pub(crate) swapped: Pages,
    /// Pages that are frames.
    pub(crate) shared: Pages,
    /// Pages that were dropped because they held zeros.
    pub(crate) zero: Pages,
    /// Pages that are being read from the swap and that a fault waits for.
    pub(crate) awaited: Pages,
    /// Mappings beyond one, for pages that are, or were, shared.
    pub(crate) mappings: u64,
    pub(crate) kind: Kind,
}

/// The state of a chunk, without what it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Empty = 0,
    Large = 1,
    Small = 2,
}
