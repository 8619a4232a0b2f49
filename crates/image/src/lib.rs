//! Disk images: raw, and qcow2 (versions 2 and 3) with backing files.
//!
//! An [`Image`] reads, writes, discards and flushes what a guest sees of its disk, whatever the
//! format of the file. The format is stated by the caller and never guessed from content: a guest
//! that writes a qcow2 header to its raw disk still has a raw disk. Files are opened by the caller
//! ([`chain`] does it by path, below one directory), so that an image works in a process that may
//! open nothing.
//!
//! What lies in an image is not trusted: every count is bounded, every offset checked, and damaged
//! metadata is an error and never a panic. Memory is bounded too: two small caches of metadata, the
//! first-level tables, and one decompressed cluster.
//!
//! | module | is |
//! |---|---|
//! | [`storage`], `latch` | what images lie in: a trait of six methods, and files; syncs that have failed |
//! | `header`, `entry` | the qcow2 format: its header, and the entries of its mapping |
//! | `cache`, `refcounts`, `metadata` | metadata in memory, and the order in which it is written |
//! | `qcow2`, `change`, `grow`, `compressed` | one qcow2 file: reading; writing, discarding; a longer disk; clusters that are compressed |
//! | [`image`] | an image of either format |
//! | [`mod@create`], [`chain`], [`info`] | making images, opening them with their backing files, facts about them |
//! | [`locks`] | locks on a disk's file, as other programs take them too |
//!
//! # What is on disk, and in which order
//!
//! A cluster's reference count is at least the number of references to it at every moment, also
//! after the process was killed or the power cut: what is left over then is space that nothing
//! refers to, which `qemu-img check -r leaks` finds. `metadata.rs` has the order of writes.
//!
//! # Why not a crate
//!
//! `imago` keeps up to 10 MiB of metadata an image, which a VMM of 5 MiB cannot afford, reads no
//! zstd, and bounds little of a header; `qcow2-rs` needs an asynchronous runtime.
//!
//! Not supported: encryption, external data files, extended L2 entries. Images with internal
//! snapshots, and such that were not closed cleanly or are marked as damaged, are only read.

mod beneath;
mod cache;
pub mod chain;
mod change;
#[cfg(any(test, feature = "fuzzing"))]
mod check;
mod compressed;
pub mod create;
mod entry;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod grow;
mod header;
pub mod image;
pub mod info;
mod latch;
mod lock;
pub mod locks;
#[cfg(any(test, feature = "fuzzing"))]
mod memory;
mod metadata;
mod qcow2;
mod refcounts;
pub mod storage;
#[cfg(test)]
mod tests;

pub use beneath::Beneath;
pub use error::Error;
pub use format::Format;
pub use header::{Backing, Header};
pub use image::Image;
pub use latch::SyncLatch;
pub use qcow2::Qcow2;
pub use storage::{FileStorage, Storage};
