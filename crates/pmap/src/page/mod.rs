//! The states of chunks and of the pages of small chunks: what is remembered, and what it counts
//! for.
//!
//! Plain data behind one lock a chunk. What may become of it, and in which steps, is in
//! `transition/`.
//!
//! # What bookkeeping costs
//!
//! Without pressure, less than 0.01 % of guest memory: some 60 bytes a chunk, and a bit for each
//! slot of the swap. With every chunk small, 0.21 %, for a table of 8 bytes a page. The swap's
//! buffers and rings add at most 2 MiB a VM. What the store needs for itself is charged with it,
//! and the kernel's page tables are 0.2 % of what is resident. `tests/bookkeeping` measures it.

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
