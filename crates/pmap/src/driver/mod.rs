//! What sets transitions off: threads that serve faults, devices, the balloon, and the jobs that
//! take, share, sample and restore memory.
//!
//! Each driver owns the state that only it needs, and has the [`Vm`](crate::transition::Vm) that it
//! works on. Drivers hold no lock when they call a source of grants.

pub(crate) mod audit;
pub(crate) mod eviction;
pub(crate) mod faults;
pub(crate) mod inflation;
mod iovec;
pub(crate) mod pin;
pub(crate) mod promotion;
pub(crate) mod release;
pub(crate) mod sampler;
pub(crate) mod scanner;
pub(crate) mod service;
pub(crate) mod stats;
