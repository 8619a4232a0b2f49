//! The VM's end of page sharing (Waldspurger 2002, section 4): who looks for pages, and whom they
//! are named to.
//!
//! [`Scanner`] is the thread that looks, as much as the daemon lets it. What it finds goes through
//! [`frames::DomainFrames`], by which the pmap knows its domain, to the [`Exchange`], and from
//! there over the control link. The exchange also keeps both sides' accounts of references the
//! same, whatever becomes of the daemon in between.
//!
//! Nothing that comes back is believed: the pmap compares every page with its frame in full.

mod exchange;
mod frames;
mod pace;
mod scanner;
mod window;

pub(crate) use exchange::{Answer, Exchange};
pub(crate) use scanner::Scanner;
