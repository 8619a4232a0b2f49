use serde::{Deserialize, Serialize};

use crate::PAGE_SIZE;

/// A frame of a sharing domain: its place in the domain's pool, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameNo(pub u32);

impl FrameNo {
    /// Where it begins in the pool's file, in bytes.
    pub fn offset(self) -> u64 {
        u64::from(self.0) * PAGE_SIZE
    }
}

/// Why a reference to a frame is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnReason {
    /// The page is not the frame, or not any more.
    Unused,
    /// The page was never the frame: its content differs although the digest is the same.
    Mismatch,
}

impl ReturnReason {
    /// The reason of a message that says whether content differs.
    pub fn of(mismatched: bool) -> Self {
        if mismatched { Self::Mismatch } else { Self::Unused }
    }

    /// Whether content differs.
    pub fn is_mismatch(self) -> bool {
        self == Self::Mismatch
    }
}

/// A page of a VM's memory by its place among all of them, holes in the guest-physical address
/// space left out: less than the VM's size in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageNo(pub u32);
