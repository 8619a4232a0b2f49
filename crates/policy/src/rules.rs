use plimsoll_units::Pages;

use crate::Tax;

/// The operator's settings, as far as targets depend on them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The tax on idle memory.
    pub tax: Tax,
    /// Largest balloon, in percent of the VM's size. More than 100 counts as 100.
    pub largest_balloon: u8,
    /// The most by which a balloon may grow in a second. It may shrink at once.
    pub inflation: Pages,
    /// Largest part of a VM's size that its compressed pages may take, in percent.
    pub largest_store: u8,
}

impl Rules {
    /// Beyond 65 % a guest that suddenly needs memory thrashes before its balloon can give way,
    /// much below it ballooning reclaims too little (ESXi, `Mem.CtlMaxPercent` 65).
    pub const LARGEST_BALLOON: u8 = 65;

    /// Beyond a tenth of a VM's size, what is compressed to be out of the way is itself in the way
    /// (ESXi, `Mem.MemZipMaxPct` 10).
    pub const LARGEST_STORE: u8 = 10;

    /// Most machine memory that the compressed pages of a VM of `size` may take.
    pub fn store(&self, size: Pages) -> Pages {
        part_of(size, self.largest_store)
    }

    /// The largest balloon of a VM of `size`, whatever its guest can bear.
    pub(crate) fn balloon(&self, size: Pages) -> Pages {
        part_of(size, self.largest_balloon.min(100))
    }

    /// 128 MiB a second. The paper limits the rate too and prints none (Waldspurger 2002, section
    /// 3.2). Faster, and a guest loses its page cache and more before the estimate of what it uses
    /// has seen the first refault: at this rate a VM of 4 GiB loses a tenth in three seconds and
    /// the most that it can lose in twenty, a fast half-life of the estimator. Slower, and a host
    /// that a few large VMs fill falls from soft to hard, where pages are swapped that a balloon
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
