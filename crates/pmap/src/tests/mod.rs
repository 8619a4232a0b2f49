//! Tests that need the kernel's part: each runs a pmap with a thread that serves its faults.

mod basics;
mod counters;
mod direct_io;
mod failing_swap;
mod frames;
pub(crate) mod harness;
mod kvm;
mod model;
pub(crate) mod paging;
mod refusals;
mod sampling;
mod sharing;
mod stalled;
mod stress;
mod vcpu;
