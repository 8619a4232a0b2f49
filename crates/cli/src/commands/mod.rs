//! One file per command: its options, its requests to the daemon, and the text of the answer.

pub(crate) mod console;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod explain;
mod guest;
pub(crate) mod history;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
mod paging;
pub(crate) mod plan;
mod poll;
pub(crate) mod pool;
pub(crate) mod ps;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod share;
mod sharing;
pub(crate) mod show;
mod stall;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod version;
pub(crate) mod wait;

pub(crate) use self::ps::{note, up};
pub(crate) use self::stall::stalled;

#[cfg(test)]
pub(crate) mod samples;
