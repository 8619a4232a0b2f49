//! Guests that work as the paper's did: what they boot, and how they are told what to do.
//!
//! [`dbench_disk`] and [`debian_disk`] build their disks, outside the lab. In the lab [`dbench`]
//! and [`worker`] run them, and [`content`] reads what their memory holds.

pub(crate) mod content;
pub(crate) mod dbench;
pub(crate) mod dbench_disk;
pub(crate) mod debian_disk;
mod disk;
pub(crate) mod worker;
