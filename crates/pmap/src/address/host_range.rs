use plimsoll_units::{CHUNK_SIZE, PAGE_SIZE};

/// A range of host addresses in whole pages, laid out as userfaultfd's ioctls take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct HostRange {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// Page and chunk sizes as the address space counts them.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const PAGE: usize = PAGE_SIZE as usize;
#[expect(clippy::cast_possible_truncation, reason = "2 MiB")]
pub(crate) const CHUNK: usize = CHUNK_SIZE as usize;
