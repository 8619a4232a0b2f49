//! What the parts of Plimsoll say to each other.
//!
//! - [`definition`]: a virtual machine as its operator writes it down (TOML); [`pool`]: a resource
//!   pool likewise; [`change`]: what is changed of both later.
//! - [`status`]: what the host, VMs and pools are and have now, with [`stall`] for time stalled;
//!   [`explain`]: why; [`history`]: what was.
//! - [`api`]: the paths of the HTTP/JSON API, on which all of these travel.
//! - [`control`]: the messages between the daemon and one VMM, and [`wire`], the socket that
//!   carries them; [`sharing`]: the words of page sharing.
//! - [`agent`]: the messages between `plimsoll exec` and the agent in a guest.
//! - [`toml_text`]: errors of files that people write, with line and key.
//!
//! This crate never decides anything and keeps no state. Types here are plain facts; the daemon
//! decides what they mean for memory (grants), the pmap what they mean for pages. Neither side of a
//! [`wire`] trusts the other's numbers: each type documents the bounds that its receiver checks.
//! Start with [`control`] for what daemon and VMM do, with [`api`] for what users see.

pub mod agent;
pub mod api;
mod autostart;
mod burst;
pub mod change;
pub mod control;
pub mod definition;
mod disk_name;
pub mod explain;
mod forgotten_unit;
pub mod history;
mod labels;
mod link_state;
mod name;
mod or_none;
mod percent;
mod place;
pub mod pool;
mod shares;
pub mod sharing;
pub mod stall;
pub mod status;
mod tax;
pub mod toml_text;
pub mod wire;

pub use autostart::{StartDelay, StartOrder};
pub use burst::Burst;
pub use disk_name::DiskName;
pub use forgotten_unit::forgotten_unit;
pub use labels::{LabelKey, LabelValue, Labels, MAX_LABELS};
pub use link_state::LinkState;
pub use name::{DomainName, NameError, PoolName, VmName};
pub use or_none::OrNone;
pub use percent::Percent;
pub use place::Place;
pub use shares::Shares;
pub use tax::{TaxError, TaxRate};
