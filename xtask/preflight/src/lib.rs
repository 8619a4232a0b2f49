//! Preflight: looks for what a `cargo xtask` command needs, before anything else is compiled.
//!
//! `cargo xtask` runs this package's program. It builds in seconds, since it depends on next to
//! nothing. [`Needs`] says what a command line needs; [`check()`] looks for all of it, installs and
//! downloads what is missing where it may, and names the rest in one message. Then `xtask` is built
//! and run, or for the demo a smaller program.
//!
//! The lab uses this library for everything that comes from Debian: [`packages`],
//! [`kernel`], [`deb`]. Every use of apt goes through [`lists`], which updates old package lists.

mod apt;
pub mod cache;
pub mod cargo;
mod check;
pub mod deb;
pub mod kernel;
pub mod kvm;
pub mod lists;
mod memory;
mod needs;
pub mod packages;
pub mod program;
pub mod say;
mod size;
mod space;
mod sys;

pub use check::check;
pub use memory::available;
pub use needs::{CLOUD_SCENARIOS, DISK_SCENARIOS, Needs, SOURCE_STEPS, lab_memory};
pub use size::Size;
