//! Pages that VMs share: the machine-wide half.
//!
//! A [`Domain`] is a set of VMs that may share pages with each other. It knows which content its
//! members have, by hash, keeps the *frames* that they map in place of pages of their own, and
//! counts who refers to which. It believes no member: a frame's content is written and hashed here,
//! and a member can only spoil what is its own.
//!
//! This crate knows no sockets and no policy, maps nothing of a guest, and never sees guest memory
//! but for the copies that members offer. Start reading at [`Domain`], then `offer.rs`, then
//! `index.rs`.
//!
//! # How a page becomes shared
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | A | [looks up](Domain::look_up) a page by its hash; nothing has it: the page is a *hint* |
//! | 2 | B | looks up a page of the same hash: [`Found::Wanted`] |
//! | 3 | B | [offers](Domain::offer) the content. It is copied, the copy hashed, and if that fits, it becomes a frame with two *references*: B's page and A's |
//! | 4 | A, B | are told the frame, compare their pages with it under write protection, and map it, or [give back](Domain::give_back) the reference |
//! | 5 | C | looks up a page of the same hash: [`Found::Frame`], with a reference; compares, maps |
//! | 6 | any | writes to its page, so it maps the frame no more, and gives back the reference. After the last one the frame's memory goes back to the host |
//!
//! Hints, hashes and comparing are the paper's (Waldspurger 2002, section 4). There one program
//! reads all pages; here the reading and comparing is the VMMs' work, and what they say is only
//! believed as far as it concerns themselves.
//!
//! # What a member can do to others
//!
//! - *A false hash* finds a frame or a hint that its page does not match. It costs a comparison or
//!   a copy, and nothing is shared. Members most of whose hashes prove false are left alone for a
//!   growing while (`trust.rs`).
//! - *False content*: refused, because the copy is hashed.
//! - *Keeping references*: they count for what it is charged, one for each of its pages at most.
//!   *Giving back what it has not*: ignored.
//! - *Hashes that all go to one place* of the index: needs a secret that it does not know
//!   (`key.rs`).
//! - *Reading the pool*: it can read every frame of its domain. That is what a domain means. Its
//!   process can do so even after it has left; so whoever lets one leave that runs on
//!   [closes](Domain::close) the domain, and has the others share in another one.
//!
//! # Bookkeeping, byte by byte
//!
//! Under 20 bytes a page, whatever the pages are, and without steps while it grows:
//!
//! | for each | bytes | where |
//! |---|---|---|
//! | page of a member | 4: nothing, hint and 30 bits of its hash, or the number of its frame | `holding.rs` |
//! | hint, frame | 9 in the index and what lines leave empty: 64 bytes for 7 entries, 88 of 100 of them used, are 10.4 | `index/line.rs` |
//! | frame | 5.3: 30 bits of its hash in 4, up to 255 references in 1, 2 bits | `frames/block.rs` |
//!
//! A hint takes 14.4 bytes; a page that shares a frame with one other 12; a page that has a frame
//! for itself, which is the dearest, 19.7.
//!
//! Why so:
//! - *An entry is found from its page or frame*, to be removed, because these keep the prefix of
//!   the hash, which is all that says where in the index it is. So no entry needs a link, and the
//!   index can deal them out as it likes.
//! - *A page's number in 31 bits* (a *place*: members have consecutive ranges) leaves one bit to
//!   tell hints from frames.
//! - *40 bits of a hash in an entry* suffice, because comparing in full follows (`index/tag.rs`).
//! - *A byte for references*, with a map for those frames that have more: few do, and those save so
//!   much that it does not matter. What the paper does with 16 bits (section 4.2).
//! - *Lines of 64 bytes* are what memory is read in: a look-up waits for one, and look-ups of a
//!   batch wait together (`Domain::look_up`).
//! - *Growing by one line* instead of doubling: nothing else waits meanwhile, and the table is
//!   never half empty (`index/shape.rs`).
//!
//! # Who may do what to the pool
//!
//! The pool is a memfd (`pool.rs`). The daemon writes it by system calls and maps it nowhere.
//! Members have a read-only descriptor. The file's mode keeps other users from opening it for
//! writing, its seals keep everybody from changing its size. A member that reads a hole in a
//! mapping of its own fills it with zeros, which takes memory: [`Domain::excess`] tells,
//! [`Domain::scrub`] takes it back.
//!
//! A frame is *used* while it has references, *lingers* until its memory is punched out, and is
//! *free* then. Only free frames are used again. That nothing maps a frame without a reference is
//! the members' part: who maps one reads zeros, or other content of its domain, in what it takes
//! for its own memory.
//!
//! # Alternatives not taken
//!
//! - *A hash map from std*: 35 bytes an entry on average, and all other members wait while it moves
//!   16 million entries.
//! - *Two candidate lines for each entry* (cuckoo hashing): fuller, but a look-up of what is not
//!   there, which is most of them, reads both.
//! - *Full hashes for frames*: 3 bytes more for each; comparing pages is needed anyway.
//! - *Sweeping the index* when a member leaves: walking what the member had finds each of its
//!   entries at once.
//! - *Mapping the pool here*, to write frames without system calls: a copy less, but a page that
//!   cannot be had (a memory limit) would be a signal instead of an error.

mod answer;
mod bookkeeping;
mod domain;
mod error;
mod frames;
mod holding;
mod index;
mod key;
mod member;
mod mmap;
mod offer;
mod pool;
mod prefetch;
mod recover;
mod target;
mod trust;
mod window;

pub use answer::{Found, Freed, GivenBack, MemberId, MemberStats, Offered, Stats};
pub use domain::Domain;
pub use error::Error;
pub use window::{Shown, Window};

use plimsoll_units::Pages;

/// The most frames that a domain can have, and the most pages that its members can have together: 8
/// TiB.
pub const MAX_PAGES: Pages = Pages(1 << 31);
