//! One VM's guest memory: which page is where, who provides it, and what it costs.
//!
//! [`Pmap`] maps guest RAM, serves its page faults within the grant, takes back what the guest gives up, and keeps
//! devices and all of that out of each other's way. It knows Linux's memory system calls. It knows no KVM and no
//! virtio: vCPUs and devices are to it whoever touches the mapping. It never decides how much memory a VM should
//! have; that arrives as grants from a [`GrantSource`].
//!
//! Start reading at [`Pmap`], then the states below, then `transition/`.
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
//! | `memory/`, `account/` | guest RAM as the kernel sees it; what is held, and who waits |
//! | `address/` | names for chunks, pages, and sets of them |
//!
//! # Use
//!
//! The owner makes a [`uffd::Uffd`] and a [`Pmap`], gives [`Pmap::regions`] to KVM as memory slots,
//! and runs [`Pmap::serve_faults`] on a thread of its own before anything touches guest memory.
//! Devices use [`Pmap::ram`] for CPU access, [`Pmap::pin`] for asynchronous I/O, and [`Inflation`]
//! or [`Pmap::release`] for what the guest gives back. A thread that has nothing else to do calls
//! [`Pmap::page_out`] where the guest does not give enough, and [`Pmap::promote`] when that has
//! passed. Another one calls [`Pmap::scan`], which finds pages that others have, too: a
//! [`FrameSource`] knows. A [`Sampler`] finds out how much of the memory is in use, and
//! [`Pmap::stalled`] tells for how long faults have waited. The control link implements
//! [`GrantSource`] and calls [`Pmap::add_grant`] and [`Pmap::return_grant`].
//!
//! Any thread that touches guest memory can wait for a grant. Two must therefore never do so with the VM depending on
//! them: the thread that serves faults, and the one through which grants come. The balloon's device thread should do
//! little else, because a grant may come from the memory that it frees.
//!
//! # States
//!
//! A chunk is 2 MiB of guest RAM, 512 pages. *Armed* means registered with userfaultfd: touching a missing page asks
//! the pmap.
//!
//! | chunk | pages present | armed | costs the grant | per-page state |
//! |---|---|---|---|---|
//! | empty | none | yes | 0 | none; one bit for "all in the balloon" |
//! | large | as the kernel likes | no | 512 | none |
//! | aside | none; all are in a place of their own behind guest RAM | yes | 512 | none |
//! | small | the resident ones | yes | its charged pages | 8 bytes, see below |
//!
//! A chunk that has ballooned pages and others is small even if none is present, because which ones must be
//! remembered. *Ballooned* is absent plus the guest's promise not to touch the page; if it does, it pops the page out
//! (Waldspurger 2002, section 3.2) and finds zeros.
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
//! A private page may be *overlaid*: it lies in the mapping of a frame that it was shared with, where the kernel has copied it.
//! Before anything else than being shared again can become of it, it moves to anonymous memory (`transition/rehome.rs`).
//!
//! # Transitions
//!
//! All run under the chunk's lock, from the first system call to the account's last update.
//!
//! | from | when | steps, in this order | to |
//! |---|---|---|---|
//! | empty | touched; the grant has 512 pages left | charge 512; disarm, which wakes | large |
//! | empty | touched; the source has granted less, or the chunk is ballooned | charge 1; fill the page, which wakes | small |
//! | small | absent, zero or ballooned page touched | charge 1; fill the page, which wakes | small |
//! | compressed, leaving | touched | charge 1; fill the page with the content, which wakes; forget it where it was | private |
//! | swapped | touched, or next to one that is | charge 1; ask for it; the answer comes to the fault thread | arriving |
//! | arriving | it has come | fill the page write-protected, which wakes; without protection where a write waits, and the slot is free | clean or private |
//! | arriving | it cannot be read | uncharge; tell the source if somebody waits for it | swapped |
//! | clean | written to | unprotect, which wakes; the slot is free | private |
//! | private | eviction has chosen it | protect; look at it; copy it into the store or a write buffer; discard; uncharge | compressed, leaving, or absent if zero |
//! | clean | eviction has chosen it, or slots are short | discard; uncharge | swapped (or unprotect, and private) |
//! | compressed | it is the oldest, and the store is full | copy it into a write buffer; uncharge what the store gives back | leaving |
//! | leaving | it has been written | | swapped |
//! | leaving | it could not be written | keep the buffer; swap out no more until a reset; tell the source | leaving |
//! | private, clean | the scanner saw zeros | protect; look again; discard; uncharge | zero |
//! | private, clean | the source named a frame for it | protect; compare with the frame in full; map the frame; arm and protect it; ask the kernel whether it was written to in between; uncharge; wake | shared, or private and overlaid |
//! | shared | written to | charge 1; unprotect, which wakes; have the kernel copy it; give the frame back | private, overlaid |
//! | shared | the guest gives it back | move fresh memory into its place; arm; discard; give the frame back | absent |
//! | private, overlaid | about to be taken, dropped or put aside | protect; move a copy into its place; arm; unprotect | private |
//! | small | promoted: at least half is charged, nothing ballooned | charge the rest; bring everything back; unprotect; disarm; collapse | large |
//! | large | eviction has chosen it | arm; ask the kernel which pages are present; then as small | small |
//! | any | a device will overwrite the page, which is compressed or swapped | forget where it was | absent |
//! | any | touched beyond the grant | queue the fault, tell the source | as it was |
//! | large | all of it released | arm; discard; uncharge 512 | empty |
//! | large | part of it released | arm; ask the kernel which pages are present; those are private; split the huge page; then as small | small |
//! | small | pages released | discard in runs; forget what is elsewhere; wake who waits for what was arriving; mark; uncharge | small, or empty once all are absent or all ballooned |
//! | large | [`Sampler::begin`] has drawn it | arm; move its pages aside, contents and all | aside |
//! | aside | any page touched | move the pages back, which disarms; wake; count a touch | large |
//! | aside | not touched until [`Sampler::end`], or released or reset before | move the pages back, which disarms; wake; then as large | large |
//! | private, clean | [`Sampler::begin`] has drawn it | give up the copy in the swap; move the page aside | aside |
//! | aside (page) | touched | move the page back; arm it; wake; count a touch | private |
//! | aside (page) | not touched until [`Sampler::end`], or released or reset before | move the page back; arm it; wake; then as private | private |
//! | aside | eviction has chosen it, or the scanner for pages of it that can be shared | move the pages back; then as large | small |
//! | any | reset | arm everything; discard everything; uncharge; forget and wake who waits | empty |
//!
//! Why this order:
//! - *Charge before, uncharge after* the kernel has or has lost the page: what is held is never less than what is
//!   resident, and a grant is a bound at every moment, not on average.
//! - *Arm before discarding or asking*: a page that the guest touches in between would be present, uncounted, and
//!   believed absent.
//! - A released page may be touched at the same time by a guest that broke its promise. It then gets its old content
//!   or zeros, which is its own affair; its fault waits for the chunk's lock and is answered from the new state.
//! - What is *aside* moves there and back in one step each (mremap), with its contents, huge page and all. Nobody can see
//!   half of it, and whoever touches it in between waits for a fault's answer. A chunk with device I/O in flight is not
//!   put aside: it is in use for certain, and no fault would show that.
//! - *Protect before looking* at a page that is to leave: what is written after it was copied would be lost. A write that
//!   comes meanwhile waits, finds the lock taken, and is answered from the page's new state.
//! - *The copy in the swap is good only while the page is protected.* Whoever lets it be written frees the slot first.
//! - *A completion holds its slot* (`content/swap/`): whoever finds a page in the state that was left for a slot, with its completion
//!   in hand, knows that it is about this content and no earlier one. What is given back while it is on its way is
//!   therefore ignored when it comes.
//! - *Nothing waits for a disk under a lock.* The thread that serves faults begins reads, and puts in place what has come.
//! - *Compare under protection*: a page that is compared and then written would lose what was written. What is written between
//!   the mapping of a frame and its protection is a copy of the guest's own, which the kernel shows.
//! - *A frame is given back when nothing shows it any more*: its place in the pool is another page's content soon after. So a
//!   page that is written is copied at once, and the frame under a device that may read it stays.
//! - *Fresh memory is armed late*, for a mapping cannot be made armed. Where the content matters a copy of it moves in, in one
//!   step; where it does not, what the guest touched meanwhile is discarded.
//! - A page under device I/O (a live [`IoGuard`]) is left out of every release and eviction. Otherwise the device would go on
//!   writing to a page that is no longer the guest's, and its data be lost.
//!
//! # Invariants, and what would notice a breach
//!
//! | DESIGN's invariant | test |
//! |---|---|
//! | 1: held never exceeds the grant; only the fault that would waits | `tests::stress` with its auditor, `tests::basics::a_fault_beyond_the_grant_waits_and_others_do_not` |
//! | 3: no write is lost | `tests::stress` (verified generations), `tests::model`, `tests::paging`; on a device that fails `tests::failing_swap` |
//! | 3, 4: nor by sharing | `tests::counters` (frames are overwritten and reused as soon as they are given back), `tests::sharing` |
//! | 3: nor by sampling, which leaves huge pages whole | the same, and `tests::sampling` |
//! | 4: zeros or own content | the same: what comes back from the balloon must be zeros |
//! | 5: no transition under device I/O | `tests::stress` (devices against a guest that reports their buffers as free), `tests::basics::pages_under_io_stay` |
//! | 6: the kernel agrees ([`Pmap::audit`]) | the auditor in `tests::stress`, and after every step of `tests::model` |
//!
//! All of them are checked by `model_check` as well, which runs these transitions on a kernel of its own under thousands
//! of schedules (`cargo test -p plimsoll-pmap --lib --features model-check model_check`).
//!
//! That both do notice is tested too: `mutation.rs` names deliberate defects that test builds switch on, and
//! `cargo test -p plimsoll-pmap notice` shows each of them found, as does the model check. It alone sees a page that was written
//! before its frame was guarded: to an audit that is a write that waits.
//!
//! # Alternatives not taken
//!
//! - *A lock for each page*: transitions move runs of pages in one system call, and a chunk's worth is the unit in
//!   which the kernel's own locks are contended anyway. One lock for each 2 MiB is never held by two vCPUs for long.
//! - *Serving queued faults in the fault thread*: whoever makes room serves them. No second wake-up can then be lost
//!   between the two, and a grant that arrives is in use when [`Pmap::add_grant`] returns.
//! - *Populating a large chunk before it is disarmed*: the first touch does that on the vCPU that wants the page, so
//!   several chunks are zeroed in parallel, and the fault thread stays free.
//! - *UFFDIO_MOVE* (Linux 6.8) to take pages out: saves the copy and the protection, but the floor is 6.1, a page that shrinks
//!   has to be looked at anyway, and one flush for 64 pages is cheap.
//! - *Compressed pages in the swap*: half the I/O, but slots of many sizes, and a page must be unpacked in any case. A disk
//!   that is slower than its use would want it.
//! - *Leaving the splitting of huge pages to the kernel*: breaking a chunk up would take 20 us and not 370, and memory
//!   would fragment less. But pages counted as given back, and granted to another VM, would still be occupied until
//!   the host is short of memory, which is when it is needed most.
//! - *UFFDIO_MOVE* (Linux 6.8) for sampling: 7 us for a huge page out and back, against 9 with mremap, but 120 against 15
//!   for one of small pages. It splits the huge page where a fault has left a page table behind, and the floor is 6.1.
//! - *Copy-on-write breaks without asking*: the kernel copies a page in 10 us and not in 40, but a VM would hold pages that
//!   nobody counts until they are found, for which the host has to keep a reserve. A page that is written often is not shared for long.
//! - *Write-protection that tells what has changed* (`UFFDIO_WRITEPROTECT_ASYNC`, Linux 6.7) for the scanner: a userfaultfd has
//!   it for all pages or for none, large ones would be split by their first write, and the floor is 6.1. A line of every fourth page shows
//!   whether a chunk has changed for 1/100 of what hashing it costs. What that misses is found a few passes later.
//! - *PAGEMAP_SCAN* (Linux 6.7) instead of `/proc/self/pagemap`: a chunk is one read of 4 KiB, and the floor is 6.1.
//!
//! # What the kernel does with it
//!
//! Part of a huge page that is discarded leaves the resident set at once, but the kernel keeps the memory until the
//! huge page is split, which is asked for when a chunk is broken up. That can fail while a page of it is under device
//! I/O; the kernel then does it when memory is short. [`Inflation`] gathers whole chunks, which need no splitting. A small
//! chunk that became empty may keep its page table (before Linux 6.14); large again, it then has small pages until
//! khugepaged collapses it. Each change between armed and unarmed neighbours is a mapping more for the kernel
//! (`vm.max_map_count`); where those run out, chunks stay small and say so in the log. Pages that are or were shared are counted as
//! islands, with the mappings that they take at most, until their chunk is one mapping again: when it is made large, or
//! all of it was given back. Sharing keeps within a bound on that count. No fault depends on a mapping more: a shared page
//! that is written is copied where it is, and what was put aside is copied back if it cannot be moved.
//!
//! # What bookkeeping costs
//!
//! Without pressure less than 0.01 % of guest memory: some 60 bytes a chunk, and a bit for each slot of the swap. With every
//! chunk small 0.21 %, for a table of 8 bytes a page. The swap's buffers and rings add at most 2 MiB a VM, what the store needs for itself is charged with
//! it, and the kernel's page tables are 0.2 % of what is resident. `tests/bookkeeping` measures it.
//!
//! # In a jail
//!
//! Everything that is opened is opened by [`Pmap::new`] and [`uffd::Uffd`]. Afterwards this crate makes the system
//! calls in [`SYSCALLS`], and on the userfaultfd the ioctls in [`uffd::IOCTLS`]; the only advice it gives to
//! `madvise` is `MADV_DONTNEED`, `MADV_COLD`, `MADV_COLLAPSE` and `MADV_HUGEPAGE`.

mod account;
mod address;
mod content;
mod driver;
mod error;
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
pub use error::Error;
pub use memory::{GuestRam, RamRegion, uffd};
pub use pmap::{Config, Pmap, Stats};
pub use transition::release::{Release, ReleaseOutcome};

/// System calls that this crate makes after [`Pmap::new`], for a seccomp filter. What Rust's threads, locks and
/// allocator need comes on top.
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
