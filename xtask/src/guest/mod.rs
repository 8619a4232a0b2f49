//! Guests of demo and tests: their tiny image, and the conversation with `toucher` in them.

pub(crate) mod dbench;
pub(crate) mod debian;
pub(crate) mod image;
