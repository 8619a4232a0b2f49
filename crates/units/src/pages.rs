use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// Bytes in a page: the x86-64 base page, the unit of every page state.
pub const PAGE_SIZE: u64 = 4096;
/// Pages in a chunk: what one x86-64 huge page maps.
pub const CHUNK_PAGES: u64 = 512;
/// Bytes in a chunk.
pub const CHUNK_SIZE: u64 = CHUNK_PAGES * PAGE_SIZE;

/// A number of 4 KiB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Pages(pub u64);

impl Pages {
    /// No pages.
    pub const ZERO: Self = Self(0);
    /// The pages of one chunk.
    pub const CHUNK: Self = Self(CHUNK_PAGES);

    /// Whole pages that fit into `bytes`.
    pub fn floor(bytes: Bytes) -> Self {
        Self(bytes.0 / PAGE_SIZE)
    }

    /// Pages that `bytes` need.
    pub fn ceil(bytes: Bytes) -> Self {
        Self(bytes.0.div_ceil(PAGE_SIZE))
    }

    /// Their size. Saturates at 2^64 - 1, which no machine has.
    pub fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(PAGE_SIZE))
    }

    /// The sum, or `None` above 2^64 - 1.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` where `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The difference, or zero where `other` is larger.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest value there is.
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Add for Pages {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Pages {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for Pages {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl SubAssign for Pages {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for Pages {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| a + b)
    }
}

/// A guest-physical page number: the guest-physical address divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ppn(pub u64);

impl Ppn {
    /// The page that holds guest-physical address `address`.
    pub fn of_address(address: u64) -> Self {
        Self(address / PAGE_SIZE)
    }

    /// The guest-physical address of its first byte, or `None` where that is above 2^64 - 1.
    pub fn address(self) -> Option<u64> {
        self.0.checked_mul(PAGE_SIZE)
    }
}
