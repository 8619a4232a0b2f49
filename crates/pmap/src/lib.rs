//! One VM's guest memory: where each page is, what provides it, and what it costs.
//!
//! [`Pmap`] maps guest RAM, serves its page faults within a grant of machine memory, takes back
//! what the guest gives up, pages out what it does not give, shares pages with other VMs, and keeps
//! devices out of the way of all that.
//!
//! It never decides how much memory a VM should have: that arrives as grants from a
//! [`GrantSource`]. It knows Linux's memory system calls, but neither KVM nor virtio: vCPUs and
//! devices are threads that touch the mapping. It opens nothing after [`Pmap::new`], and provides
//! no page that is not charged.
//!
//! Start reading at [`Pmap`], then the states below, then the table of transitions in
//! `transition/mod.rs`, and the order of locks in `lock.rs`. `memory/kernel.rs` says what the
//! kernel does with all this, `page/mod.rs` what it costs to remember, `tests/mod.rs` which test
//! would notice what.
//!
//! # Example
//!
//! A VM of 4 MiB that may hold two pages, with a host thread as its guest. Memory costs nothing
//! until it is touched. What the guest gives back is free at once, and reads as zeros when it is
//! touched again. It needs the crates `plimsoll-units` and `vm-memory` beside this one, and does
//! nothing where this process may not use userfaultfd.
//!
//! ```
//! use std::sync::Arc;
//!
//! use plimsoll_pmap::uffd::Uffd;
//! use plimsoll_pmap::{Config, Event, GrantSource, Pmap, PpnRange, Release};
//! use plimsoll_units::{Pages, Ppn};
//! use vm_memory::{Bytes, GuestAddress};
//!
//! /// Grants nothing beyond what the VM has from the start.
//! struct Fixed;
//!
//! impl GrantSource for Fixed {
//!     fn want(&self, _total: Pages) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if Uffd::open().is_err() {
//! #     eprintln!("SKIPPED: this process may not use userfaultfd");
//! #     return Ok(());
//! # }
//! let config = Config {
//!     regions: vec![PpnRange::new(Ppn(0), Pages(1024))],
//!     // Needs `/dev/userfaultfd`, or the right to call userfaultfd(2).
//!     uffd: Uffd::open()?,
//!     huge_pages: false,
//!     grant: Pages(2),
//!     store: Pages::ZERO,
//!     swap: None,
//! };
//! let pmap = Pmap::new(config, Arc::new(Fixed))?;
//! assert_eq!(pmap.stats().held, Pages::ZERO);
//!
//! let stop = Event::new()?;
//! std::thread::scope(|scope| {
//!     // Each first touch of a page is a fault, which this thread serves.
//!     let server = scope.spawn(|| pmap.serve_faults(&stop));
//!     let guest = scope.spawn(|| {
//!         let page = GuestAddress(4096);
//!         pmap.ram().write_obj(42_u64, page).expect("a page of the VM");
//!         assert_eq!(pmap.ram().read_obj::<u64>(page).expect("a page of the VM"), 42);
//!         assert_eq!(pmap.stats().held, Pages(1));
//!
//!         // The balloon takes the page.
//!         let released = pmap.release(&[PpnRange::page(Ppn(1))], Release::Ballooned);
//!         assert_eq!(released.freed, Pages(1));
//!         assert_eq!((pmap.stats().held, pmap.stats().ballooned), (Pages::ZERO, Pages(1)));
//!
//!         // A touch takes it out of the balloon again. What it held is gone.
//!         assert_eq!(pmap.ram().read_obj::<u64>(page).expect("a page of the VM"), 0);
//!         assert_eq!(pmap.stats().held, Pages(1));
//!     });
//!     let end = guest.join();
//!     stop.signal();
//!     end.expect("every assertion holds");
//!     server.join().expect("the server does not panic")
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! # Callers
//!
//! | caller | calls |
//! |---|---|
//! | owner | [`Pmap::new`]; gives [`Pmap::regions`] to KVM as memory slots |
//! | a thread or two of its own | [`Pmap::serve_faults`], before anything touches guest memory |
//! | devices | [`Pmap::ram`] for CPU access, [`Pmap::pin`] or [`Pmap::pin_request`] for asynchronous I/O |
//! | balloon, free page reporting | [`Inflation`], [`Pmap::release`], [`Pmap::deflate`] |
//! | pager, an idle thread | [`Pmap::page_out`] under pressure, [`Pmap::promote`] afterwards |
//! | scanner, a thread of its own | [`Pmap::scan`], with a [`FrameSource`] that knows what other VMs have |
//! | control link | implements [`GrantSource`]; [`Pmap::add_grant`], [`Pmap::return_grant`], [`Pmap::stats`], [`Pmap::stalled`] |
//! | sampling | [`Sampler`] |
//!
//! A thread that touches guest memory may wait for a grant. Two must therefore never do so while
//! the VM depends on them: the thread that serves faults, and the one through which grants come.
//! The balloon's device thread should do little else, because a grant may come from the memory that
//! it frees.
//!
//! # Layers
//!
//! Each imports from those below it only, and no two folders import each other.
//!
//! | layer | has |
//! |---|---|
//! | `pmap.rs` | [`Pmap`]: hands calls to drivers |
//! | `driver/` | what sets transitions off: faults, devices, balloon, eviction, scanner, sampler; the audit |
//! | `transition/` | what may become of a chunk or page: functions over memory and a locked chunk |
//! | `page/` | the states of chunks and pages |
//! | `content/` | content outside of guest memory: store, swap, frames |
//! | `memory/`, `account/` | guest RAM as the kernel sees it; what is held, and which faults wait |
//! | `address/` | names for chunks and pages, and where they are mapped |
//!
//! # States
//!
//! A chunk is 2 MiB of guest RAM, 512 pages. *Armed* means registered with userfaultfd: touching a
//! missing page asks the pmap.
//!
//! | chunk | pages present | armed | costs the grant | per-page state |
//! |---|---|---|---|---|
//! | empty | none | yes | 0 | none; one bit for "all in the balloon" |
//! | large | as the kernel likes | no | 512 | none |
//! | aside | none; all are in a place of their own behind guest RAM | yes | 512 | none |
//! | small | the resident ones | yes | its charged pages | 8 bytes, see below |
//!
//! A chunk with ballooned and other pages is small even if none is present, because the chunk must
//! remember which pages are ballooned. *Ballooned* is absent plus the guest's promise not to touch
//! the page; a touch takes the page out of the balloon (Waldspurger 2002, section 3.2) and finds
//! zeros.
//!
//! A page of a small chunk:
//!
//! | page | its content is | resident | write-protected | costs the grant |
//! |---|---|---|---|---|
//! | absent | zeros | no | | 0 |
//! | zero | zeros, which were seen when it was dropped | no | | 0 |
//! | ballooned | zeros, and the guest has promised not to touch it | no | | 0 |
//! | private | in guest memory | yes | no | 1 |
//! | clean | in guest memory, and the same in the swap | yes | yes | 1 |
//! | compressed | in the store (`content/store/`) | no | | its part of the store |
//! | leaving | in a write buffer of the swap (`content/swap/`) | no | | 0: the buffers are the VMM's overhead |
//! | swapped | in the swap | no | | 0 |
//! | arriving | in the swap, being read | no | | 1 |
//! | aside | in a place of its own behind guest RAM | no | no | 1 |
//! | shared | in a frame of the pool, of which it is a mapping | as the kernel likes | yes | 0: the host's ledger counts frames |
//!
//! A private page may be *overlaid*: it lies in the mapping of a frame that it was shared with,
//! where the kernel has copied it. Before it is evicted, dropped or set aside it moves to anonymous
//! memory (`transition/anonymous.rs`).
//!
//! # In a jail
//!
//! [`Pmap::new`] and [`uffd::Uffd`] open all files. Afterwards this crate makes the system calls in
//! [`SYSCALLS`], and on the userfaultfd the ioctls in [`uffd::IOCTLS`]. It gives `madvise` no
//! advice but `MADV_DONTNEED`, `MADV_COLD`, `MADV_COLLAPSE` and `MADV_HUGEPAGE`.

mod account;
mod address;
mod content;
mod driver;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzz {
    //! The target of `cargo xtask fuzz`.
    pub use crate::content::swap::fuzz::swap;
}
#[cfg(test)]
mod inject;
mod lock;
mod memory;
#[cfg(test)]
#[cfg(feature = "model-check")]
mod model_check;
#[cfg(test)]
mod mutation;
mod page;
mod pmap;
mod sync;
mod transition;

#[cfg(test)]
#[cfg(not(feature = "model-check"))]
mod tests;

pub use account::{GrantSource, SharingTraffic, Stalled, Traffic};
pub use address::{MAX_SAMPLES, PpnRange};
pub use content::{Found, FramePool, FrameSource, MOST_OFFERED, SwapSpace};
pub use driver::audit::Mismatch;
pub use driver::eviction::PagedOut;
pub use driver::inflation::Inflation;
pub use driver::pin::{Intent, IoGuard, PinRequest};
pub use driver::sampler::{Sampled, Sampler, Seen};
pub use driver::scanner::{ScanOrder, Scanned};
pub use driver::stats::Stats;
pub use error::Error;
pub use memory::{GuestRam, RamRegion, uffd};
pub use plimsoll_sys::Event;
pub use pmap::{Config, Pmap};
pub use transition::release::{Release, ReleaseOutcome};

/// System calls that this crate makes after [`Pmap::new`], for a seccomp filter. What Rust's
/// threads, locks and allocator need comes on top.
pub const SYSCALLS: [i64; 14] = [
    libc::SYS_futex,
    libc::SYS_io_uring_enter,
    libc::SYS_ioctl,
    libc::SYS_clock_gettime,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_write,
];
