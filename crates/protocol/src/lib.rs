//! What the parts of Plimsoll say to each other.
//!
//! - [`definition`]: a virtual machine as its operator writes it down (TOML).
//! - [`pool`]: a resource pool likewise.
//! - [`control`]: the messages between the daemon and one VMM, and [`wire`], the socket that
//!   carries them; [`sharing`]: the words of page sharing.
//! - [`api`]: what the daemon tells its users over HTTP, with [`stall`] for time stalled;
//!   [`explain`]: why; [`history`]: what was.
//!
//! This crate never decides anything and keeps no state. Types here are plain facts; what they mean
//! for memory is decided by the daemon (grants) and by the pmap (pages). Neither side of a [`wire`]
//! trusts the other's numbers: each type documents the bounds that its receiver has to check.

pub mod api;
pub mod control;
pub mod definition;
pub mod explain;
pub mod history;
mod name;
mod or_none;
mod percent;
pub mod pool;
pub mod sharing;
pub mod stall;
mod tax;
pub mod wire;

pub use name::{DomainName, NameError, PoolName, VmName};
pub use or_none::OrNone;
pub use percent::Percent;
pub use tax::{TaxError, TaxRate};
