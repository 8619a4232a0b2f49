//! The states of chunks and of the pages of small chunks: what is remembered, and what it counts
//! for.
//!
//! Plain data behind one lock a chunk. What may become of it, and in which steps, is in
//! `transition/`.

mod activity;
mod chunk;
#[cfg(test)]
mod defects;
mod extra_mappings;
mod probes;
mod state;
pub(crate) mod step;
mod table;
mod touch;

pub(crate) use activity::Activity;
#[cfg(not(test))]
pub(crate) use activity::Touches;
pub(crate) use chunk::{Backing, Chunk, ChunkGuard, Chunks};
#[cfg(test)]
pub(crate) use defects::Touches;
pub(crate) use extra_mappings::ExtraMappings;
pub(crate) use probes::{Inside, Probes};
pub(crate) use state::PageState;
pub(crate) use step::Step;
pub(crate) use table::Table;
pub(crate) use touch::Touch;
