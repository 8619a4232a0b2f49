use std::io;

use plimsoll_units::Pages;

use crate::MemberId;

/// Why a domain could not be made, or a VM could not join it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool's file could not be made or opened.
    #[error("{what} the frames that VMs share failed: {hint}")]
    Pool {
        /// What was done.
        what: &'static str,
        /// What may help.
        hint: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host has no memory for the bookkeeping.
    #[error("no memory for the bookkeeping of shared pages: free some")]
    Memory(#[source] io::Error),
    /// The kernel has no random numbers.
    #[error("no random key for the digests of shared pages")]
    Random(#[source] io::Error),
    /// A descriptor is not one of a pool.
    #[error("this file is not a pool of frames: {problem}; end the VM that brought it")]
    NotAPool {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The VM takes part already.
    #[error("VM {0:?} takes part in this sharing domain already: let it leave first")]
    AlreadyMember(MemberId),
    /// The VMs of one domain may have [`crate::MAX_PAGES`] together.
    #[error("a VM of {size:?} does not fit into its sharing domain any more: put it into another domain")]
    TooLarge {
        /// Its size.
        size: Pages,
    },
}

impl Error {
    pub(crate) fn pool(what: &'static str, hint: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Pool { what, hint, source: errno.into() }
    }
}
