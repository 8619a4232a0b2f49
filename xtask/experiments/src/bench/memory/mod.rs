//! What the benchmarks of guest memory have in common: a pmap whose faults are served, and plain
//! memory to compare with.

pub(crate) mod bare;
pub(crate) mod buffer;
pub(crate) mod guest;
pub(crate) mod ksm;
mod madvise;
pub(crate) mod plain;
pub(crate) mod processor;
pub(crate) mod put_back;
pub(crate) mod swapon;
mod userfaultfd;
