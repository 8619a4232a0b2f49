//! What the memory of two VMs holds: data sets with known numbers of equal pages.

use clap::ValueEnum;

use crate::bench::memory::buffer::{PageBuffer, Random};

/// Pages of a run that is the same in both VMs: 256 KiB, as much as a program's code or a file that
/// was read may have.
const RUN: u64 = 64;

/// What the memory of two VMs holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Data {
    /// Half of each VM's pages are in the other as well: single pages at places of their own, in an
    /// order of their own.
    Scattered,
    /// The same in runs of 64 pages, which lie at any page.
    Runs,
    /// Half of the pages are zeros, single pages here and there.
    Zero,
    /// A tenth of each VM's pages are in the other as well, single pages; all others are like no
    /// other.
    Unique,
}

/// Which page of a VM holds what: equal numbers are equal pages, and zero is a page of zeros.
pub(crate) type Contents = Vec<u64>;

impl Data {
    pub(crate) const ALL: [Self; 4] = [Self::Scattered, Self::Runs, Self::Zero, Self::Unique];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scattered => "scattered",
            Self::Runs => "runs",
            Self::Zero => "zero",
            Self::Unique => "unique",
        }
    }

    /// What two VMs of `pages` pages each hold.
    pub(crate) fn contents(self, pages: u64) -> [Contents; 2] {
        let half = pages / 2;
        let (common, run, zeros) = match self {
            Self::Scattered => (half, 1, 0),
            Self::Runs => (half / RUN * RUN, RUN, 0),
            Self::Zero => (0, 1, half),
            Self::Unique => (pages / 10, 1, 0),
        };
        [1, 2].map(|vm| {
            // Pages of its own have the VM's number on top.
            let own = (0..pages - common - zeros).map(|page| (vm << 48 | page, 1));
            let zeros = (0..zeros).map(|_| (0, 1));
            let common = (1..=common).step_by(usize::try_from(run).unwrap_or(1)).map(|first| (first, run));
            let mut parts: Vec<(u64, u64)> = own.chain(zeros).chain(common).collect();
            Random(vm).shuffle(&mut parts);
            parts.into_iter().flat_map(|(first, len)| first..first + len).collect()
        })
    }

    /// Pages that need not be there once each content is there once, and zeros not at all.
    pub(crate) fn mergeable(self, pages: u64) -> u64 {
        match self {
            Self::Scattered => pages / 2,
            Self::Runs => pages / 2 / RUN * RUN,
            Self::Zero => pages / 2 * 2,
            Self::Unique => pages / 10,
        }
    }
}

/// Whether the page is in the other VM as well, or zeros.
pub(crate) fn is_common(content: u64) -> bool {
    content >> 48 == 0
}

/// The page with this content.
pub(crate) fn page(content: u64) -> PageBuffer {
    if content == 0 { PageBuffer::ZERO } else { PageBuffer::noise(content) }
}

/// The memory of each VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) chunks: u64,
    pub(super) huge_pages: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PAGES: u64 = 4096;

    #[test]
    fn as_many_pages_are_equal_as_is_said() {
        for data in Data::ALL {
            let contents = data.contents(PAGES);
            assert!(contents.iter().all(|vm| vm.len() as u64 == PAGES), "{data:?}");
            let all: Vec<u64> = contents.concat();
            let needed = all.iter().filter(|&&content| content != 0).collect::<HashSet<_>>().len();
            assert_eq!(all.len() - needed, usize::try_from(data.mergeable(PAGES)).unwrap(), "{data:?}");
            let common = all.iter().filter(|&&content| is_common(content)).count();
            assert!(common >= usize::try_from(data.mergeable(PAGES)).unwrap(), "{data:?}");
        }
    }

    #[test]
    fn the_vms_do_not_have_them_at_the_same_places() {
        for data in Data::ALL {
            let [one, other] = data.contents(PAGES);
            let same = one.iter().zip(&other).filter(|(one, other)| one == other && **one != 0).count();
            assert!(same < 200, "{data:?}: {same}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_pages() {
        assert!(page(0).0 == [0; 4096] && page(7).0 == page(7).0);
        // The number is the first word: without it the pages differ still.
        assert!(page(7).0[8..] != page(1 << 48 | 7).0[8..]);
    }
}
