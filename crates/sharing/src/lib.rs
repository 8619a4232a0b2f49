//! Pages that VMs share: the machine-wide half.
//!
//! A [`Domain`] is a set of VMs that may share pages with each other. It knows which content its members have, by hash,
//! keeps the *frames* that they map in place of pages of their own, and counts who refers to which. It believes no member: a
//! frame's content is written and hashed here, and a member can only spoil what is its own.
//!
//! This crate knows no sockets and no policy, maps nothing, and never sees guest memory but for the copies that members offer.
//! Start reading at [`Domain`].

mod answer;
mod bookkeeping;
mod domain;
mod error;
mod frames;
mod holding;
mod index;
mod key;
mod member;
mod offer;
mod pool;
mod prefetch;
mod recover;
mod target;
mod trust;

pub use answer::{Found, Freed, GivenBack, MemberId, MemberStats, Offered, Stats};
pub use domain::Domain;
pub use error::Error;

use plimsoll_units::Pages;

/// The most frames that a domain can have, and the most pages that its members can have together: 8 TiB.
pub const MAX_PAGES: Pages = Pages(1 << 31);
