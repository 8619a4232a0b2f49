/// A transition: the first column of the table in `transition/mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Enlarge,
    Split,
    Provide,
    Fetch,
    Await,
    Arrive,
    Miss,
    Dirty,
    Unshare,
    BreakUp,
    Evict,
    Spill,
    Written,
    DropZero,
    Share,
    Overwrite,
    Release,
    EmptyLarge,
    Balloon,
    Deflate,
    Collect,
    Promote,
    SetAside,
    BringBack,
    Reset,
    /// What a deliberate defect does, in tests.
    #[cfg(test)]
    Defect,
}

/// A state of a page or of a chunk, without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Zero,
    Ballooned,
    Private,
    Clean,
    Compressed,
    Leaving,
    Swapped,
    Arriving,
    Aside,
    Shared,
    EmptyChunk,
    LargeChunk,
    AsideChunk,
    SmallChunk,
}

/// Notes a change of state. Tests compare it with the table.
#[cfg(not(test))]
pub(super) const fn note(_step: Step, _from: State, _to: State) {}

#[cfg(test)]
pub(super) use observed::note;

#[cfg(test)]
pub(crate) mod observed;
