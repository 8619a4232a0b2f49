//! The units in which every other crate counts: [`Bytes`], [`Pages`] and [`Ppn`]; [`PageNo`] and
//! [`FrameNo`] for pages that are shared, and [`PageDigest`], by which a sharing domain recognises
//! content. [`PageSet`] is a set of pages of a chunk.
//!
//! This crate never does I/O and knows no other crate of the project. A quantity of memory crosses
//! a crate boundary as one of these types, never as a bare integer. Start with [`Bytes`], which
//! also reads and writes sizes as people do ("512MiB").

mod bytes;
mod digest;
mod page_set;
mod pages;
mod sharing;

pub use bytes::{Bytes, ParseBytesError};
pub use digest::{DigestKey, PageDigest};
pub use page_set::{PageSet, SLOTS, Slot};
pub use pages::{CHUNK_PAGES, CHUNK_SIZE, PAGE_SIZE, Pages, Ppn};
pub use sharing::{FrameNo, PageNo, ReturnReason};
