//! What may become of chunks and pages, in which steps.
//!
//! A transition is a function over a [`Vm`], or only its memory, and a locked chunk. It changes the
//! kernel's view, the chunk's state and the account in an order in which nothing is lost, and
//! returns by how much the VM holds less. It waits for no disk and no grant, and does not call the
//! source of grants: its caller does, without a lock.
//!
//! # Table
//!
//! Every change of a state names its [`Step`](crate::page::Step). States in capitals are those of
//! chunks. All steps run under the chunk's lock, from the first system call to the last update of
//! the account. Tests read this table: a change that it does not have fails them, and the model
//! check fails where a state of a row never occurs in its step.
//!
//! | step | from | to | in this order |
//! |---|---|---|---|
//! | `Enlarge` | EMPTY | LARGE | touched, and the grant has 512 pages left: charge 512; disarm, which wakes |
//! | `Split` | EMPTY | SMALL | a page of it is touched or ballooned, and the rest stays as it is |
//! | `Provide` | absent, zero, ballooned, compressed, leaving | private | touched, or absent behind pages that are written in order: charge 1; fill the page, with its content where it has one, which wakes; forget the content. Or written to while its chunk was renewed |
//! | `Fetch` | swapped | arriving | touched, or next to a page that is: charge 1; ask the swap for it |
//! | `Await` | arriving | arriving | touched: remember how |
//! | `Arrive` | arriving | clean, private | it was read: fill the page write-protected, which wakes; private, without protection and with its slot freed, where a write waits |
//! | `Miss` | arriving | swapped | it cannot be read or put in place: uncharge; tell the source if a fault waits for it |
//! | `Dirty` | clean | private | written to, slots are short, or it is about to be set aside or promoted: unprotect, which wakes; free the slot |
//! | `Unshare` | shared | private | written to, promoted, or sharing ends: charge 1; unprotect, which wakes; have the kernel copy it; give the frame back. It is overlaid then |
//! | `BreakUp` | LARGE | SMALL | eviction, the scanner or a release wants pages of it, or a sample of it was touched and is probed, or it can be neither set aside nor disarmed: arm; ask the kernel which pages are present: those are private |
//! | `Evict` | private | zero, compressed, leaving | protect; look at it; copy it into the store or a write buffer; discard; uncharge |
//! | `Evict` | clean | swapped | discard; uncharge |
//! | `Spill` | compressed | leaving | it is the oldest and the store is full: copy it into a write buffer; uncharge what the store gives back |
//! | `Written` | leaving | swapped | it was written. After an error it stays leaving, its buffer is kept, and nothing is swapped out until a reset |
//! | `DropZero` | private | zero | the scanner saw zeros: protect; look again; discard; uncharge; wake. A clean page never holds zeros: those are not swapped out |
//! | `Share` | private, clean | shared, private | the source named a frame: protect; compare in full; map the frame; arm and protect it; ask the kernel whether it was written to in between, and is private and overlaid; uncharge; wake |
//! | `Overwrite` | compressed, leaving, swapped | absent | a device is about to write all of it: forget the content |
//! | `Release` | absent, zero, private, clean, compressed, leaving, swapped, arriving, shared | absent | given back: move fresh memory over frames; discard in runs; forget content elsewhere; wake threads that wait for arriving ones; uncharge |
//! | `EmptyLarge` | LARGE | EMPTY | all of it was given back: arm; discard; uncharge 512 |
//! | `Balloon` | absent, ballooned | ballooned | given back to the balloon: mark |
//! | `Balloon` | EMPTY | EMPTY | all of it was given back to the balloon: mark |
//! | `Deflate` | ballooned | absent | the guest takes it out of its balloon: mark |
//! | `Collect` | SMALL | EMPTY | all pages are absent or zero, or all ballooned, and the chunk is one mapping: free the table |
//! | `Promote` | SMALL | LARGE | at least half is charged, nothing ballooned: charge the rest; provide everything; unprotect; disarm; collapse |
//! | `SetAside` | private | aside | drawn as a sample: move it out of frames' mappings; move it behind guest RAM |
//! | `SetAside` | LARGE | ASIDE | drawn as a sample: arm; move its pages behind guest RAM |
//! | `BringBack` | aside | private | touched, which counts, or the period ends, or other steps need it: move it back; arm it; wake |
//! | `BringBack` | ASIDE | LARGE | the same: move its pages back, which disarms; wake |
//! | `Reset` | EMPTY, LARGE, SMALL | EMPTY | arm everything; discard everything; uncharge; forget content elsewhere and the faults that wait; wake |
//!
//! Before a page that is private and overlaid is evicted, dropped or set aside it moves to
//! anonymous memory (`anonymous.rs`). A touch beyond the grant changes no state: the fault is
//! queued, and the source is told.
//!
//! # Why this order
//!
//! - *Charge before, uncharge after* the kernel has or has lost the page: what is held is never
//!   less than what is resident, so the grant is a bound at every moment.
//! - *Arm before discarding or asking*: a page that the guest touches in between would be present,
//!   uncounted, and believed absent.
//! - *Protect before looking* at a page that is to leave: what is written after the copy would be
//!   lost. Such a write waits, finds the chunk locked, and is answered from the page's new state.
//! - *The copy in the swap is good only while the page is protected.* The slot is freed before the
//!   page may be written.
//! - *A completion holds its slot* (`content/swap/`): if the page still has the state that was left
//!   for the slot, the completion is about this content and no earlier one. A completion for a page
//!   that was given back meanwhile is ignored.
//! - *Nothing waits for a disk under a lock.* The thread that serves faults begins reads, and puts
//!   in place what has come.
//! - *Compare under protection*: a page that is compared and then written would lose the write.
//!   What is written between the mapping of a frame and its protection is a copy of the guest's
//!   own, which the kernel shows.
//! - *A frame is given back when no mapping shows it any more*: soon after, it has the content of
//!   another page. So a page that is written is copied at once, and a frame that a device may read
//!   is kept.
//! - *Fresh memory is armed late*, because a mapping cannot be made armed. Where the content
//!   matters, a copy of it moves in, in one step. Where the guest has given the pages up, what it
//!   has touched meanwhile is discarded. Where there is nothing, but the guest may write
//!   (`renew.rs`), all pages are charged before, and what it has touched is private afterwards.
//! - *Memory that is set aside moves in one step* (mremap), with its contents, huge page and all.
//!   No thread sees half of it, and a touch in between waits for its fault's answer. A chunk with
//!   device I/O in flight is not set aside: it is in use, and no fault would show that.
//! - *A page under device I/O* (a live [`IoGuard`](crate::IoGuard)) is left out of every release
//!   and eviction. Otherwise the device would go on writing to a page that is not the guest's any
//!   more.
//! - A released page may be touched at the same time by a guest that broke its promise. It gets its
//!   old content or zeros. Its fault waits for the chunk's lock.
//!
//! # Alternatives not taken
//!
//! - *A lock for each page*: transitions move runs of pages in one system call, and a chunk is
//!   about the unit in which the kernel's own locks are contended. Two vCPUs seldom wait for one
//!   lock of 2 MiB.
//! - *Serving queued faults in the fault thread*: the driver that makes room serves them. So no
//!   second wake-up can be lost between the two, and a grant is in use when
//!   [`Pmap::add_grant`](crate::Pmap::add_grant) returns.
//! - *Populating a large chunk before it is disarmed*: the first touch does that on the vCPU that
//!   wants the page, so several chunks are zeroed in parallel, and the fault thread stays free.
//! - *UFFDIO_MOVE* (Linux 6.8) to take pages out: it saves the copy and the protection. But the
//!   floor is 6.1, a page that shrinks has to be read anyway, and one flush for 64 pages is cheap.
//! - *Compressed pages in the swap*: half the I/O, but slots of many sizes, and a page must be
//!   unpacked in any case. It would pay on a disk that is slower than its load.
//! - *Leaving the splitting of huge pages to the kernel*: breaking a chunk up would take 20 us and
//!   not 370, and memory would fragment less. But pages counted as given back, and granted to
//!   another VM, would still be occupied until the host is short of memory, which is when it is
//!   needed most.
//! - *UFFDIO_MOVE* (Linux 6.8) for sampling: 7 us for a huge page out and back, against 9 with
//!   mremap, but 120 against 15 for one of small pages. It splits the huge page where a fault has
//!   left a page table behind, and the floor is 6.1.
//! - *Copy-on-write without asking*: the kernel copies a page in 10 us and not in 40, but the VM
//!   would hold uncounted pages until they are found, and the host would have to keep a reserve for
//!   them. A page that is written often is not shared for long.
//! - *Write-protection that tells what has changed* (`UFFDIO_WRITEPROTECT_ASYNC`, Linux 6.7) for
//!   the scanner: a userfaultfd has it for all pages or for none, large ones would be split by
//!   their first write, and the floor is 6.1. A line of every fourth page shows whether a chunk has
//!   changed for 1/100 of what digesting it costs. What that misses is found a few passes later.
//! - *PAGEMAP_SCAN* (Linux 6.7) instead of `/proc/self/pagemap`: a chunk is one read of 4 KiB, and
//!   the floor is 6.1.

pub(crate) mod anonymous;
pub(crate) mod aside;
pub(crate) mod break_up;
mod elsewhere;
pub(crate) mod evict;
pub(crate) mod frames;
pub(crate) mod probe;
pub(crate) mod promote;
pub(crate) mod provide;
pub(crate) mod release;
mod renew;
pub(crate) mod share;
pub(crate) mod spill;
pub(crate) mod swap_in;
pub(crate) mod touch;
pub(crate) mod unshare;
mod vm;
pub(crate) mod zeros;

pub(crate) use vm::Vm;
