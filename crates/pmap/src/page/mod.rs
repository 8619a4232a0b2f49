//! The states of chunks and of the pages of small chunks: what is remembered, and what it counts for.
//!
//! Plain data behind one lock a chunk. What may become of it, and in which steps, is in
//! `transition/`.

mod chunk;
#[cfg(test)]
mod defects;
mod evidence;
mod islands;
mod state;
mod table;
mod touch;

pub(crate) use chunk::{Backing, Chunk, ChunkGuard, Chunks};
#[cfg(test)]
pub(crate) use defects::Touches;
pub(crate) use evidence::Evidence;
#[cfg(not(test))]
pub(crate) use evidence::Touches;
pub(crate) use islands::Islands;
pub(crate) use state::PageState;
pub(crate) use table::Table;
pub(crate) use touch::Touch;
