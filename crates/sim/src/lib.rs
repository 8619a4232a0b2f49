//! A host on paper: VMs with memory demand over time, under the daemon's own policy.
//!
//! [`simulate`] takes a [`Scenario`] and returns its [`Course`]. The decisions are those of
//! `plimsoll-policy`, called as the daemon calls them once a second; only what they act on is
//! modelled: guests that touch, keep and free memory (`guest.rs`, `memory.rs`), balloons, sharing,
//! swap, and the random samples that estimates come from. The same scenario with the same seed
//! gives the same course on every machine.
//!
//! Where sampling, sharing and swap are concerned the facts that policy is given are these: a VM
//! uses what its samples show and what its faults wait for; it holds its own pages and its part of
//! shared frames; and what its guest has beyond that, shared or on swap, is taken off its size, so
//! that its balloon need not hold it as well (else a VM that shares much is squeezed below its
//! target, gives way, and is squeezed again). A VM pages out what it holds and waits for beyond its
//! level, so that its faults replace pages of its own where policy says so.
//!
//! This crate never does I/O: scenarios and traces come in as text, courses go out as values. Start
//! with [`Simulation::step`].
//!
//! [`Occupied::fit`] answers another question, without time: how many more VMs of a kind a host can
//! take.
//!
//! What the models leave out: compression (what policy would compress is swapped), large pages and
//! how pages lie in them, the time that reclaiming takes beyond the speeds given, and what a
//! guest's slowness does to its own demand.

mod course;
mod demand;
mod fields;
mod fit;
mod guest;
mod memory;
mod random;
mod sampler;
mod scenario;
mod sharing;
mod simulation;
mod trace;
mod vm;

pub use course::{Course, Event, Frame, Peaks, STATES, Spread, VmFrame, VmTotals};
pub use demand::{Curve, Cycle, Demand, Point, Trace, Want};
pub use fit::{Fit, Occupied, Tenant};
pub use scenario::{Change, Changed, GuestSpec, HostSpec, Scenario, ThresholdRule, VmSpec};
pub use simulation::{Simulation, simulate};
pub use trace::COLUMNS;
