//! The lab: a whole virtual host under QEMU's software emulation, for machines whose KVM cannot run
//! guests, and the kernels, images and disks that it and its guests are made of.
//!
//! [`Lab::boot`] starts a Debian kernel with `kvm-amd` on an emulated processor with SVM, and
//! [`Lab::run`] runs commands in it. Outside and inside are the same program: [`main()`] tells
//! whether it is the lab's first process, and [`inside`] is what it does there.
//!
//! This crate knows nothing of daemons and VMs: it carries the programs in, and does not use them.
//! It downloads nothing but Debian's packages (by [`preflight`]) and leaves nothing outside the
//! [`cache`]. Start reading at [`Lab`], then [`wire`] and [`inside`].

pub mod attach;
pub mod attempt;
pub mod cache;
pub mod command;
mod config;
pub mod cpio;
pub mod debian;
pub mod emulator;
mod entry;
mod failure;
pub mod guest;
mod host;
pub mod inside;
pub mod kernel;
mod lab;
mod prctl;
mod processor_time;
mod programs;
pub mod wire;
pub mod workspace;

pub use config::{Config, Switch};
pub use entry::main;
pub use failure::Failure;
pub use lab::{Lab, show};
pub use processor_time::ProcessorTime;
