//! One file per command: its options, its requests to the daemon, and the text of the answer.

pub(crate) mod console;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod disk;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
mod manner;
mod new_vm;
pub(crate) mod pause;
pub(crate) mod plan;
mod poll;
pub(crate) mod pool;
pub(crate) mod ps;
pub(crate) mod rename;
pub(crate) mod reset;
pub(crate) mod restart;
pub(crate) mod resume;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod share;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod version;
pub(crate) mod wait;

pub(crate) use self::ps::up;
