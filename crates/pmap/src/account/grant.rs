use plimsoll_units::Pages;

use crate::error::Error;

/// Whoever decides how much machine memory this VM may hold. In Plimsoll that is the daemon, at the other end of the
/// VMM's control link.
pub trait GrantSource: Send + Sync {
    /// The faults that wait now need `total` pages more than the grant. Called when that number changes, without any
    /// lock held, in the order of the changes; `total` replaces what was told before. It must not block: the fault
    /// thread calls it.
    ///
    /// The answer to a `total` above zero is [`Pmap::add_grant`](crate::Pmap::add_grant), now or later, with more,
    /// less, or nothing at all. Nothing means "make do": a fault that waits for a whole chunk then takes a single
    /// page, if the grant has one left. A source that will not answer (its daemon is gone) should say so in this
    /// way, so that what was granted can be used. The answer may be given from within this call.
    fn want(&self, total: Pages);

    /// The VM gave pages back (ballooned, reported, reset) and those who waited have been served: it holds less, and there
    /// may be grant to return with [`Pmap::return_grant`](crate::Pmap::return_grant). Called without any lock held. It must
    /// not block.
    fn freed(&self) {}

    /// Something is wrong with the swap. [`Error::SwapWrite`] comes at most once until a reset, and the VM may go on without swapping.
    /// After [`Error::SwapRead`] whoever touches the page waits for ever: the VM must be stopped. Called without any
    /// lock held. It must not block.
    fn trouble(&self, what: Error) {
        tracing::error!("{what}");
    }
}
