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
//! `transition/mod.rs`, and the order of locks in `lock.rs`.
//!
//! # Example
//!
//! A VM of 4 MiB that may hold two pages, with a host thread as its guest. Memory costs nothing
//! until it is touched. What the guest gives back is free at once, and reads as zeros when it is
//! touched again.
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
//! # Invariants, and what would notice a breach
//!
//! | invariant of ARCHITECTURE.md | test |
//! |---|---|
//! | 1: held never exceeds the grant; only the fault that would waits | `tests::stress` with its auditor, `tests::basics::a_fault_beyond_the_grant_waits_and_others_do_not` |
//! | 3: no write is lost | `tests::stress` (verified generations), `tests::model`, `tests::paging`; on a device that fails `tests::failing_swap` |
//! | 3, 4: nor by sharing | `tests::counters` (frames are overwritten and reused as soon as they are given back), `tests::sharing` |
//! | 3: nor by sampling, which leaves huge pages whole | the same, and `tests::sampling` |
//! | 4: zeros or own content | the same: what comes back from the balloon must be zeros |
//! | 5: no transition under device I/O | `tests::stress` (devices against a guest that reports their buffers as free), `tests::basics::pages_under_io_stay` |
//! | 6: the kernel agrees ([`Pmap::audit`]) | the auditor in `tests::stress`, and after every step of `tests::model` |
//!
//! `model_check` checks all of them as well: it runs the same transitions on a kernel of its own
//! under thousands of schedules (`cargo test -p plimsoll-pmap --lib --features model-check
//! model_check`).
//!
//! Both are tested themselves: `mutation.rs` names deliberate defects that test builds switch on,
//! and `cargo test -p plimsoll-pmap notice` shows each of them found, as does the model check. Only
//! the model check sees a page that was written before its frame was guarded: to an audit that is a
//! write that waits.
//!
//! # What the kernel does with it
//!
//! If part of a huge page is discarded it leaves the resident set at once, but the kernel keeps the
//! memory until the huge page is split. That is asked for when a chunk is broken up, and can fail
//! while a page of it is under device I/O; the kernel then does it when memory is short.
//! [`Inflation`] gathers whole chunks, which need no splitting. A small chunk that becomes empty
//! may keep its page table (before Linux 6.14); when it is large again it has small pages until
//! khugepaged collapses it.
//!
//! Each change between armed and unarmed neighbours is one more mapping for the kernel
//! (`vm.max_map_count`). If there are too many, chunks stay small, which the log says once. Pages
//! that are or were shared count with the mappings that they take at most, until their chunk is one
//! mapping again: when it is made large, or all of it was given back. Sharing keeps within a bound
//! on that count. No fault depends on a further mapping: a shared page that is written is copied
//! where it is, and memory that was set aside is copied back if it cannot be moved.
//!
//! # What bookkeeping costs
//!
//! Without pressure, less than 0.01 % of guest memory: some 60 bytes a chunk, and a bit for each
//! slot of the swap. With every chunk small, 0.21 %, for a table of 8 bytes a page. The swap's
//! buffers and rings add at most 2 MiB a VM. What the store needs for itself is charged with it,
//! and the kernel's page tables are 0.2 % of what is resident. `tests/bookkeeping` measures it.
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
