//! Linux's interfaces that more than one crate needs, each wrapped once.
//!
//! | module | wraps |
//! |---|---|
//! | [`event`] | an eventfd: one thread signals, another waits with `poll` |
//! | [`mmap`] | private anonymous memory and reserved address space |
//! | [`mlock`] | memory that never goes to the host's swap |
//! | [`iovec`] | `struct iovec`, and the promise that its memory stays valid |
//! | [`task`] | one thing that the kernel does with a file |
//! | [`uring`] | an io_uring that is restricted to one file |
//! | [`preadv`] | the same tasks without an io_uring, on the calling thread |
//! | [`direct`] | direct I/O (`O_DIRECT`), and the alignment that it asks for |
//! | [`ofd_lock`] | locks of single bytes that belong to an open file |
//! | [`vsock`] | sockets of a guest to its host |
//! | [`clock`] | processor time of a thread |
//! | [`lock`](fn@lock) | locks of threads that may have panicked |
//!
//! An interface that one crate uses stays in that crate. This crate knows no page state, no guest
//! and no daemon. It decides nothing, keeps no global state and logs nothing: errors go to the
//! caller. Its `unsafe` stands in [`mmap`], [`mlock`], [`iovec`], [`uring`], [`preadv`],
//! [`ofd_lock`] and [`vsock`].
//!
//! Start with [`task`], then [`iovec::Buffers`]: the one trait whose implementors promise something
//! that the compiler cannot check.

pub mod clock;
pub mod direct;
pub mod event;
pub mod iovec;
mod lock;
pub mod mlock;
pub mod mmap;
pub mod ofd_lock;
pub mod preadv;
pub mod task;
pub mod uring;
pub mod vsock;

pub use event::Event;
pub use lock::lock;
