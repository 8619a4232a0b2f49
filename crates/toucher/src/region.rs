//! Regions of patterned memory, one per seed.

use crate::libc_memory::Mapping;
use crate::pattern::{self, PAGE};

/// More seeds than any scenario uses. A driver that forgets to free gets an error instead of
/// filling the guest.
const MAX_REGIONS: usize = 64;

/// Memory that holds the pattern of one seed.
struct Region {
    seed: u64,
    memory: Mapping,
}

impl Region {
    /// Numbers of the pages whose content is wrong.
    fn mismatches(&self) -> impl Iterator<Item = usize> {
        let pages = self.memory.words().chunks_exact(pattern::words()).enumerate();
        pages.filter(|(index, page)| !pattern::holds(page, self.seed, *index as u64)).map(|(index, _)| index)
    }

    fn pages(&self) -> usize {
        self.memory.words().len() / pattern::words()
    }
}

/// What [`Regions::verify`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Pages looked at.
    pub(crate) pages: usize,
    /// Pages that do not hold their pattern.
    pub(crate) mismatched: usize,
    /// The first of them, as (seed, page).
    pub(crate) first: Option<(u64, usize)>,
}

/// All regions of this guest.
#[derive(Default)]
pub(crate) struct Regions(Vec<Region>);

impl Regions {
    /// Maps `bytes` (rounded up to pages) and fills them with the pattern of `seed`. Returns the
    /// bytes filled.
    pub(crate) fn touch(&mut self, bytes: usize, seed: u64) -> Result<usize, String> {
        if self.0.iter().any(|region| region.seed == seed) {
            return Err(format!("touch seed {seed} is in use: free it first"));
        }
        if self.0.len() == MAX_REGIONS {
            return Err(format!("touch {MAX_REGIONS} regions are in use: free some first"));
        }
        let len = bytes.checked_next_multiple_of(PAGE).filter(|len| *len > 0);
        let len = len.ok_or_else(|| format!("touch {bytes} bytes is no size of memory"))?;
        let mut memory =
            Mapping::anonymous(len).map_err(|error| format!("touch mmap of {len} bytes: {error}"))?;
        for (index, page) in memory.words_mut().chunks_exact_mut(pattern::words()).enumerate() {
            pattern::fill(page, seed, index as u64);
        }
        self.0.push(Region { seed, memory });
        Ok(len)
    }

    /// Writes the patterns of `seed` anew over what is there. Returns the bytes written.
    pub(crate) fn rewrite(&mut self, seed: u64) -> Result<usize, String> {
        let region = self.0.iter_mut().find(|region| region.seed == seed);
        let region = region.ok_or_else(|| format!("rewrite no region has seed {seed}"))?;
        for (index, page) in region.memory.words_mut().chunks_exact_mut(pattern::words()).enumerate() {
            pattern::fill(page, seed, index as u64);
        }
        Ok(region.pages() * PAGE)
    }

    /// Reads every page of the region of `seed`, or of all regions.
    pub(crate) fn verify(&self, seed: Option<u64>) -> Verdict {
        let mut verdict = Verdict::default();
        for region in self.0.iter().filter(|region| seed.is_none_or(|seed| seed == region.seed)) {
            verdict.pages += region.pages();
            for page in region.mismatches() {
                verdict.mismatched += 1;
                verdict.first = verdict.first.or(Some((region.seed, page)));
            }
        }
        verdict
    }

    /// Unmaps the region of `seed`, or all. Returns the bytes given back.
    pub(crate) fn free(&mut self, seed: Option<u64>) -> usize {
        let mut bytes = 0;
        self.0.retain(|region| {
            let goes = seed.is_none_or(|seed| seed == region.seed);
            bytes += if goes { region.pages() * PAGE } else { 0 };
            !goes
        });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_verifies_until_it_is_damaged() {
        let mut regions = Regions::default();
        assert_eq!(regions.touch(5 * PAGE + 1, 1), Ok(6 * PAGE));
        assert_eq!(regions.touch(PAGE, 2), Ok(PAGE));
        assert_eq!(regions.verify(None), Verdict { pages: 7, mismatched: 0, first: None });
        regions.0[0].memory.words_mut()[2 * pattern::words() + 9] = 0;
        assert_eq!(regions.verify(None), Verdict { pages: 7, mismatched: 1, first: Some((1, 2)) });
        assert_eq!(regions.verify(Some(2)), Verdict { pages: 1, mismatched: 0, first: None });
        assert_eq!(regions.rewrite(1), Ok(6 * PAGE));
        assert_eq!(regions.verify(None).mismatched, 0);
    }

    #[test]
    fn freed_regions_are_gone_and_their_seed_is_free_again() {
        let mut regions = Regions::default();
        regions.touch(PAGE, 1).unwrap();
        regions.touch(PAGE, 2).unwrap();
        assert!(regions.touch(PAGE, 1).is_err());
        assert_eq!(regions.free(Some(1)), PAGE);
        assert_eq!(regions.touch(2 * PAGE, 1), Ok(2 * PAGE));
        assert_eq!(regions.free(None), 3 * PAGE);
        assert_eq!(regions.verify(None).pages, 0);
    }
}
