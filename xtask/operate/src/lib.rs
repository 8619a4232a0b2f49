//! Plimsoll driven as an operator would: a daemon of our own, the `plimsoll` command, the API, and
//! the guests' consoles.
//!
//! The demo, system tests and experiments open a [`Stage`], run VMs ([`definition`]) on it and talk
//! to the program in them ([`toucher`]). What the kernel says of VMMs is in [`smaps`] and
//! [`process`], and what processes have in [`resources`]. [`remains`] finds what VMs leave
//! behind.
//!
//! This crate links nothing of daemon and VMM but their API's types: it finds the programs beside
//! the one that runs. It judges nothing; what must hold is up to its users. Start reading at
//! [`Stage`].

mod account;
pub mod agreement;
mod api;
pub mod definition;
mod files;
mod place;
pub mod process;
pub mod remains;
pub mod resources;
pub mod smaps;
mod stage;
pub mod standstill;
pub mod swap_space;
pub mod tmpfs;
pub mod toucher;
pub mod watch;

pub use api::Reply;
pub use place::{in_lab, program, share};
pub use stage::Stage;
