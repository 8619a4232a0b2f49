//! One VM's guest memory: chunks, pages, faults, grants.
//!
//! Start with [`Pmap`]. It knows Linux's memory system calls; it knows no KVM and no virtio, and never decides how much
//! memory a VM should have.

mod account;
mod audit;
mod chunk;
mod error;
mod fault;
mod grant;
mod inflation;
mod iovec;
mod layout;
mod mmap;
mod mutation;
mod page_set;
mod pagemap;
mod pin;
mod pmap;
mod ram;
mod release;
pub mod uffd;
mod waiting;

#[cfg(test)]
mod tests;

pub use audit::Mismatch;
pub use error::Error;
pub use grant::GrantSource;
pub use inflation::Inflation;
pub use layout::PpnRange;
pub use pin::IoGuard;
pub use pmap::{Config, Pmap, Stats};
pub use ram::{GuestRam, RamRegion};
pub use release::{Release, ReleaseOutcome};
