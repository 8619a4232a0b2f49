//! What `pagemap.rs` is in production, on the model's kernel.

use std::io;

use crate::address::PageSet;
use crate::model_check::kernel::kernel;

/// The model's `/proc/self/pagemap`.
#[derive(Debug)]
pub(crate) struct Pagemap;

impl Pagemap {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn backed(&self, start: u64) -> io::Result<PageSet> {
        Ok(kernel().backed(start))
    }

    pub(crate) fn own(&self, start: u64, pages: &PageSet) -> io::Result<PageSet> {
        Ok(kernel().own(start).intersection(pages))
    }

    pub(crate) fn protected(&self, start: u64) -> io::Result<PageSet> {
        Ok(kernel().protected(start))
    }
}
