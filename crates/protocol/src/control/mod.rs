//! The messages between the daemon and one VMM.
//!
//! The daemon starts a VMM with a listening socket as file descriptor [`CONTROL_FD`] and connects
//! to it. At every connection the VMM speaks first: [`FromVmm::Hello`]. Then the daemon sends
//! [`ToVmm::Boot`], once in the VMM's life, with the file descriptors that its roles name. A daemon
//! that has been restarted connects to the same socket, reads the `Hello`, and rebuilds its ledger
//! from it.
//!
//! Grants move as differences, each applied exactly once: [`ToVmm::Grant`] counts from the moment
//! it is sent (the ledger is charged first), [`FromVmm::Return`] from the moment it is read (the
//! VMM lowered its grant before it wrote). When a connection ends the VMM reads what is left in it
//! before it says `Hello` on the next one, so no grant is lost; the totals in `Hello` make up for
//! returns that were not read.

mod boot;
mod device;
mod exit;
mod facts;
mod messages;
mod sampling;

pub use boot::{
    BootConfig, DiskConfig, FdRole, GuestKind, NetConfig, NetSettings, RateLimit, SwapConfig, VsockConfig,
};
pub use device::DeviceOrder;
pub use exit::ExitReason;
pub use facts::{Chunks, Facts, GuestFacts, MAX_NETS, REPORT_PERIOD, SampleFacts, Sampled, SamplingFacts};
pub use messages::{CONTROL_FD, FromVmm, MAX_NOTICE, ToVmm, VERSION};
pub use sampling::{LONGEST_SAMPLE_PERIOD, MAX_SAMPLES, SHORTEST_SAMPLE_PERIOD, SamplingConfig};
