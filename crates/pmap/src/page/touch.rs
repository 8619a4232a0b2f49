/// How a page is touched. The greater counts where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touch {
    /// Not yet: it is brought in because it may be.
    Not,
    Read,
    /// It has waited for a grant, and nobody remembers.
    Unknown,
    Write,
}
