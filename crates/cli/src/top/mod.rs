//! The screen of `plimsoll top`: what the host and its VMs have, live.
//!
//! [`feed`] asks the daemon, on a thread of its own, so that a key is answered at once even while
//! the daemon is slow. [`view`] is what is looked at and what keys do to it; it draws nothing.
//! [`rows`] makes a table of it, [`draw`] puts it on the screen. [`choice`] is what is kept on
//! disk.
//!
//! All but [`screen`] and [`feed`] are functions of their arguments, and tested as such.

mod bar;
mod choice;
mod draw;
mod feed;
mod help;
mod look;
mod overlay;
mod pane;
mod rows;
mod screen;
mod trend;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use self::help::KEYS;
pub(crate) use self::look::Look;
pub(crate) use self::screen::run;
