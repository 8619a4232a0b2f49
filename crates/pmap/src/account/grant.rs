use plimsoll_units::Pages;

use crate::error::Error;

/// Decides how much machine memory this VM may hold. In Plimsoll that is the daemon, at the other
/// end of the VMM's control link.
pub trait GrantSource: Send + Sync {
    /// Reports that the waiting faults need `total` pages beyond the grant. Called when that number
    /// changes, without any lock held, in the order of the changes; `total` replaces the number
    /// before. It must not block: the fault thread calls it.
    ///
    /// The answer to a `total` above zero is [`Pmap::add_grant`](crate::Pmap::add_grant), now or
    /// later, with more, less, or nothing. After an answer a fault that waits for a whole chunk
    /// accepts a single page, if the grant has one left. A source that cannot grant anything (its
    /// daemon is gone) should answer with nothing, so that what was granted is used. The answer may
    /// be given from within this call.
    fn want(&self, total: Pages);

    /// Reports that the VM holds less, because it gave pages back (ballooned, reported, reset), and
    /// that waiting faults have been served from them. There may be grant to return with
    /// [`Pmap::return_grant`](crate::Pmap::return_grant). Called without any lock held. It must not
    /// block.
    fn freed(&self) {}

    /// Reports that the swap fails. [`Error::SwapWrite`] comes at most once until a reset, and the
    /// VM may go on without swapping. After [`Error::SwapRead`] a thread that touches the page
    /// waits for ever: the VM must be stopped. Called without any lock held. It must not block.
    fn trouble(&self, what: Error) {
        tracing::error!("{what}");
    }
}
