//! The host, its VMs and its pools as they are now: what users are told.
//!
//! A status says what something does and has. Of a definition it repeats what memory is divided by
//! (size, reservation, limit, shares, pool, tax, sharing), as it is in force: a limit that was left
//! out is the VM's size, shares in words have their number beside them. The whole definition, as it
//! was given, is [`crate::definition::VmDefinition`].

mod devices;
mod host;
mod paging;
mod pool;
mod sharing;
mod vm;

pub use devices::{DiskSize, DiskStatus, NetStatus};
pub use host::{HostStatus, TurnStatus};
pub use paging::PagingStatus;
pub use plimsoll_policy::PagingCause;
pub use pool::PoolStatus;
pub use sharing::{DomainStatus, SharingStatus};
pub use vm::{BalloonHealth, Exit, Power, VmStatus};
