/// How a page is touched. Of several touches the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touch {
    /// Not at all: the page is read from the swap along with a neighbour.
    ReadAhead,
    Read,
    /// A read or a write: the fault was queued, and the queue does not keep which.
    Unknown,
    Write,
}
