use std::collections::BTreeMap;

use super::pattern::{self, PAGE};

/// Memory by the seed of its pattern.
#[derive(Debug, Default)]
pub(super) struct Regions(pub(super) BTreeMap<u64, Region>);

#[derive(Debug, Default)]
pub(super) struct Region {
    /// In the order of the pattern.
    pub(super) pages: Vec<usize>,
    pub(super) content: Content,
}

/// What the pages of a region hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Content {
    /// The pattern of the region's seed.
    #[default]
    Pattern,
    /// The beginning of that, and zeros: less than half where it is compressed.
    Thin,
    Zeros,
}

impl Content {
    pub(super) fn page(self, seed: u64, index: u64) -> [u8; PAGE] {
        match self {
            Self::Pattern => pattern::page(seed, index),
            Self::Thin => pattern::thin_page(seed, index),
            Self::Zeros => [0; PAGE],
        }
    }
}

impl Regions {
    pub(super) fn find(&mut self, command: &str, seed: u64) -> Result<&mut Region, String> {
        self.0.get_mut(&seed).ok_or_else(|| format!("{command} no region has seed {seed}"))
    }
}
