//! Pages that VMs share: the machine-wide half.
//!
//! A [`Domain`] is a set of VMs that may share pages with each other. It knows which content its
//! members have, by digest. It keeps the *frames* that members map in place of pages of their own,
//! and counts the references to them. It believes no member: a frame's content is written and
//! digested here, and a member can spoil only what is its own.
//!
//! This crate knows no sockets and no policy, and maps nothing of a guest. It sees guest memory
//! only as copies that members offer.
//!
//! Start reading at [`Domain`], then `offer.rs`, then `index.rs`, which says what each page costs.
//!
//! # Example
//!
//! Two VMs have a page of the same content, and share a frame from then on.
//!
//! ```
//! use plimsoll_sharing::{Domain, Found, MemberId};
//! use plimsoll_units::{PageNo, Pages, ReturnReason};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (a, b) = (MemberId(1), MemberId(2));
//! let mut domain = Domain::new(Pages(1000))?;
//! domain.join(a, Pages(512))?;
//! domain.join(b, Pages(512))?;
//! let content = [7; 4096];
//! let digest = domain.digest_key().digest(&content);
//!
//! // Nothing has this digest yet: page 3 of A becomes a hint.
//! assert_eq!(domain.look_up(a, &[(PageNo(3), digest)]), [Found::New]);
//! // B finds the hint and offers its content, which becomes a frame for both pages.
//! assert_eq!(domain.look_up(b, &[(PageNo(9), digest)]), [Found::Wanted]);
//! let offered = domain.offer(b, &[(PageNo(9), digest)], |_, copy| *copy = content);
//! let frame = offered.frames[0].ok_or("the pool has room")?;
//! assert_eq!(offered.notices, [(a, PageNo(3), frame)], "A is to be told");
//! assert_eq!((domain.stats().frames, domain.stats().saved), (Pages(1), Pages(1)));
//!
//! // Both write to their pages, and give their references back as unused. The last one frees the
//! // frame. A member whose page had other content than the frame says `Mismatch`: that costs the
//! // frame's maker trust.
//! domain.give_back(a, &[(PageNo(3), frame)], ReturnReason::Unused);
//! domain.give_back(b, &[(PageNo(9), frame)], ReturnReason::Unused);
//! domain.tidy();
//! assert_eq!(domain.stats().frames, Pages::ZERO);
//! # Ok(())
//! # }
//! ```
//!
//! # How a page becomes shared
//!
//! | step | by | what |
//! |---|---|---|
//! | 1 | A | [looks up](Domain::look_up) a page by its digest. Nothing has this digest: the page is a *hint* |
//! | 2 | B | looks up a page of the same digest: [`Found::Wanted`] |
//! | 3 | B | [offers](Domain::offer) the content. It is copied. If the digest of the copy fits, the copy becomes a frame with two *references*: B's page and A's |
//! | 4 | A, B | are told the frame, compare their pages with it under write protection, and map it, or [give back](Domain::give_back) the reference |
//! | 5 | C | looks up a page of the same digest: [`Found::Frame`], with a reference; compares, maps |
//! | 6 | any | writes to its page, so it maps the frame no more, and gives back the reference. After the last one the frame's memory goes back to the host |
//!
//! Hints, digests and comparing are the paper's (Waldspurger 2002, section 4). In the paper one
//! program reads all pages. Here VMMs read and compare, and a VMM is believed only about itself.
//!
//! # What a member can do to others
//!
//! - *A false digest* finds a frame or a hint that the member's page does not match. It costs a
//!   comparison or a copy, and nothing is shared.
//! - *Two contents of one digest* cannot be made: it takes some 2^64 attempts, with the key too
//!   (`plimsoll_units::PageDigest`).
//! - *A frame that has another page's digest, and other content*, keeps that page from being
//!   shared. When two members have found that out the frame leaves the index. A member most of
//!   whose frames prove false is ignored for a growing time. No member loses trust for a frame that
//!   another one has made (`blame.rs`, `trust.rs`).
//! - *False content* is refused, because the digest of the copy counts.
//! - *Kept references* count for what the member is charged, one for each of its pages at most. A
//!   *return of what it does not have* is ignored.
//! - *Digests that all go to one place* of the index need a secret that members do not know
//!   (`key.rs`).
//! - *Reading the pool*: a member can read every frame of its domain. That is what a domain means.
//!   Its process can read them even after it has left. So a caller that lets a member leave while
//!   its process runs on [closes](Domain::close) the domain, and the other members share in another
//!   one.
//!
//! # What a member can learn of others
//!
//! Sharing shows that pages are alike. What is left of that, whatever this crate does:
//!
//! - *A process of a guest* learns whether a page of its content is anywhere else in the domain. It
//!   writes the content to a page, waits until the scanner has passed, and times the next write:
//!   copying a shared page takes some microseconds more. It tests one content a page and pass.
//! - *A VMM that a guest has broken into* learns the same by asking. [`Found::Frame`] and
//!   [`Found::Wanted`] say that another page has the digest, pages that nobody shares included. The
//!   daemon answers at most a million look-ups a second of one VM, two million of all together
//!   (`host/src/core/tokens.rs`). With 20 unknown bits a page is guessed in a second, with 30 in 18
//!   minutes, with 40 in two weeks; with a key of 128 bits never.
//! - Nobody can guess offline. A member's digests are not shown to others, and a VM outside the
//!   domain has neither its key nor its answers.
//! - *Frames* can be read by every member, see above. Pages of several guests in one machine page
//!   are also what attacks on the memory's hardware (Rowhammer) look for: a guest can choose whose
//!   page lies in it.
//!
//! | a VM's `sharing` | between VMs | between processes of its guest |
//! |---|---|---|
//! | a domain's name | all of that, with the VMs that name it | the time of writes |
//! | `own` | nothing | the time of writes |
//! | `zero` | nothing | nothing of each other: a process sees that its own page held zeros long enough |
//! | `off` | nothing | nothing |
//!
//! So VMs that keep secrets of little entropy from each other's guests need domains of their own,
//! and processes of one guest that do need `zero` or `off`.
//!
//! # Rights on the pool
//!
//! The pool is a memfd (`pool.rs`). The daemon writes it by system calls and maps it nowhere.
//! Members have a read-only descriptor. The file's mode keeps other users from opening it for
//! writing, its seals keep everybody from changing its size. A member that reads a hole in a
//! mapping of its own fills it with zeros, which takes memory: [`Domain::excess`] tells,
//! [`Domain::scrub`] takes it back.
//!
//! A frame is *used* while it has references. Then it *lingers* until its memory is punched out,
//! and is *free* afterwards. Only free frames are used again. Members see to it that they map no
//! frame without a reference. A member that maps one all the same reads zeros, or other content of
//! its domain, in what it takes for its own memory.

mod answer;
mod blame;
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
