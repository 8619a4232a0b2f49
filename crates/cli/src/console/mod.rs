//! Talking to a guest over its serial console: [`attach`] for people, [`script`] for programs.

pub(crate) mod attach;
pub(crate) mod script;
