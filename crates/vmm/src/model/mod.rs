//! A model of a guest: host threads that use a VM's memory as a small guest would, on hosts that
//! cannot run guest kernels.
//!
//! It speaks the language of the `toucher` program on the VM's console, keeps its own account of
//! its pages, page cache among them (`cache`), and obeys the balloon. What it shares with a real
//! guest is everything below: the same pmap, faults, grants and releases. What it does not have: a
//! kernel, vCPUs, virtio devices. A VM with a model guest says so in a notice when it starts and
//! wherever it is listed; nothing measured with it says how fast a guest runs.
//!
//! [`memory::Memory`] is its page allocator, [`guest::ModelGuest`] its threads,
//! [`command::Command`] its language, [`Input`] what was typed to it.

mod command;
mod guest;
mod input;
mod memory;
mod pattern;
mod regions;

pub(crate) use guest::{ModelGuest, Parts};
pub(crate) use input::Input;
