//! What may become of chunks and pages, in which steps.
//!
//! A transition is a function over a [`Vm`] and a locked chunk. It changes the kernel's view, the
//! chunk's state and the account in an order in which nothing is lost, and returns how many pages
//! the VM holds less. It never waits for a disk or a grant, and never calls the source of grants:
//! its caller does, without a lock.

pub(crate) mod aside;
pub(crate) mod break_up;
mod elsewhere;
pub(crate) mod evict;
pub(crate) mod frames;
pub(crate) mod promote;
pub(crate) mod provide;
pub(crate) mod rehome;
pub(crate) mod release;
pub(crate) mod share;
pub(crate) mod spill;
pub(crate) mod swap_in;
pub(crate) mod unshare;
mod vm;
pub(crate) mod zeros;

pub(crate) use vm::Vm;
