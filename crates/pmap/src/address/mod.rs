//! Names for pieces of guest memory: pages, chunks, sets of pages, and where they are mapped.
//!
//! Numbers and arithmetic only. Nothing here knows what a page holds or asks the kernel.

mod host_range;
mod layout;
mod run;
mod spare;

pub(crate) use host_range::{CHUNK, HostRange, PAGE};
pub use layout::PpnRange;
pub(crate) use layout::{ChunkNo, Layout, Place, Placed, page_no, pages_by_chunk};
pub(crate) use plimsoll_units::{PageSet, SLOTS, Slot};
pub(crate) use run::{MAX_RUN, is_ragged};
pub use spare::MAX_SAMPLES;
pub(crate) use spare::{Kind, MAX_INSIDE, SPARE_CHUNKS, Spare};
