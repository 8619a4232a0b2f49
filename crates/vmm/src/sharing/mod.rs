//! The VM's end of page sharing (Waldspurger 2002, section 4): it looks for pages that can be
//! shared, and tells the daemon.
//!
//! [`Scanner`] is the thread that looks, within the daemon's budget. What it finds goes through
//! [`frames::DomainFrames`], by which the pmap knows its domain, to the [`Exchange`], and from
//! there over the control link. The exchange also keeps both sides' accounts of references equal,
//! even when the daemon restarts in between.
//!
//! No answer is believed: the pmap compares every page with its frame in full.

mod exchange;
mod frames;
mod pace;
mod scanner;
mod window;

pub(crate) use exchange::{Answer, Exchange};
pub(crate) use scanner::Scanner;
