use plimsoll_units::Pages;

/// A VM's claim on memory, as its bounds, shares and activity state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The least that it gets: the paper's `min`.
    pub reservation: Pages,
    /// The most that it gets: the smaller of limit and size. A `limit` below `reservation` counts
    /// as `reservation`.
    pub limit: Pages,
    /// Its weight; 0 counts as 1.
    pub shares: u64,
    /// Pages that it actively uses.
    pub active: Pages,
}
