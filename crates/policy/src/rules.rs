use plimsoll_units::Pages;

use crate::tax::Tax;

/// The operator's settings that targets depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The tax on idle memory.
    pub tax: Tax,
    /// Largest balloon, in percent of the VM's size. More than 100 counts as 100.
    pub largest_balloon: u8,
    /// The largest growth of a balloon in a second. It may shrink at once.
    pub inflation: Pages,
    /// Largest part of a VM's size that its compressed pages may take, in percent.
    pub largest_store: u8,
}

impl Rules {
    /// Beyond 65 % a guest that suddenly needs memory thrashes before its balloon can shrink. Much
    /// below 65 % ballooning reclaims too little (ESXi, `Mem.CtlMaxPercent` 65).
    pub const LARGEST_BALLOON: u8 = 65;

    /// Beyond a tenth of a VM's size, compressed pages themselves take too much memory (ESXi,
    /// `Mem.MemZipMaxPct` 10).
    pub const LARGEST_STORE: u8 = 10;

    /// The largest amount of machine memory for the compressed pages of a VM of `size`.
    pub fn store(&self, size: Pages) -> Pages {
        part_of(size, self.largest_store)
    }

    /// The largest balloon of a VM of `size`, without regard to its guest's account.
    pub(crate) fn balloon(&self, size: Pages) -> Pages {
        part_of(size, self.largest_balloon.min(100))
    }

    /// 128 MiB a second. The paper limits the rate too and prints none (Waldspurger 2002, section
    /// 3.2). If faster, a guest loses its page cache and more before the estimate of its use has
    /// seen the first refault. At this rate a VM of 4 GiB loses a tenth in three seconds, and the
    /// most that it can lose in twenty, about a fast half-life of the estimator. If slower, a host
    /// that a few large VMs fill falls from soft to hard, and pages are swapped that a balloon
    /// would have found free.
    pub const INFLATION: Pages = Pages((128 << 20) / plimsoll_units::PAGE_SIZE);
}

/// `percent` of `size`, rounded down.
fn part_of(size: Pages, percent: u8) -> Pages {
    let percent = u64::from(percent);
    Pages(size.0 / 100 * percent + size.0 % 100 * percent / 100)
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            tax: Tax::DEFAULT,
            largest_balloon: Self::LARGEST_BALLOON,
            inflation: Self::INFLATION,
            largest_store: Self::LARGEST_STORE,
        }
    }
}
