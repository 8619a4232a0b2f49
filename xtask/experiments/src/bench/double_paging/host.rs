//! A host that keeps a VM below its size, by one choice of victims or another.

use anyhow::{Result, ensure};
use plimsoll_pmap::{Pmap, PpnRange};
use plimsoll_units::{Pages, Ppn};

use super::recency::Recency;

/// Pages that the host takes at a time, once the VM holds more than it may: as many as the pmap
/// takes under one hold of a lock.
pub(super) const BATCH: u64 = 64;

/// How often the host tries to take them. Each try waits up to 100 ms for the disk.
const TRIES: usize = 100;

/// From which pages the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victims {
    /// From random ones, as the pmap does by itself.
    Random,
    /// From those that the guest has not touched for longest, page by page, without any error.
    LeastRecent,
}

/// The host, which keeps a VM below its size.
pub(super) struct Host {
    victims: Victims,
    size: usize,
    most: Pages,
    /// Of guest-physical pages. A real host would have to guess it.
    recency: Recency,
}

impl Host {
    /// A host that lets a VM of `size` pages hold no more than `most`.
    pub(super) fn new(victims: Victims, size: usize, most: Pages) -> Self {
        Self { victims, size, most, recency: Recency::new(size) }
    }

    /// Notes that the guest has touched a page, itself or through a device.
    pub(super) fn touched(&mut self, frame: usize) {
        self.recency.touch(frame);
    }

    /// Takes pages where the VM holds too many.
    pub(super) fn relieve(&self, pmap: &Pmap) -> Result<()> {
        if pmap.stats().held <= self.most {
            return Ok(());
        }
        let goal = self.most - Pages(BATCH);
        for _ in 0..TRIES {
            let excess = pmap.stats().held.saturating_sub(goal);
            if excess == Pages::ZERO {
                return Ok(());
            }
            match self.victims {
                Victims::Random => pmap.page_out(excess),
                Victims::LeastRecent => pmap.page_out_of(&self.least_recent(goal)?),
            };
        }
        let held = pmap.stats().held;
        ensure!(held <= self.most, "the host cannot take pages: the VM holds {held:?} of {:?}", self.most);
        Ok(())
    }

    /// All pages but the `keep` most recently touched ones. Most are gone already; some have come
    /// back along with others.
    fn least_recent(&self, keep: Pages) -> Result<Vec<PpnRange>> {
        let count = self.size.saturating_sub(usize::try_from(keep.0)?);
        let page = |frame| PpnRange::page(Ppn(frame as u64));
        Ok(self.recency.oldest().take(count).map(page).collect())
    }
}
