use crate::address::{PageSet, SLOTS, Slot};

/// The pages of a chunk that are not in its own anonymous memory: in mappings of frames, or moved
/// there out of one. The kernel joins none of them with its neighbours.
#[derive(Debug, Default)]
pub(crate) struct Islands {
    pages: PageSet,
    /// Pages with which a mapping begins, where the page before is in an island, too.
    starts: PageSet,
}

impl Islands {
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// `len` pages from `first` on are one mapping of their own now.
    pub(crate) fn put(&mut self, first: Slot, len: Slot) {
        let run = PageSet::span(first, len);
        self.pages = self.pages.union(&run);
        self.starts = self.starts.minus(&run).union(&PageSet::one(first));
        // What comes behind was perhaps one mapping with them.
        if first + len < SLOTS {
            self.starts.insert(first + len);
        }
    }

    /// How many mappings more than one the chunk's pages take at most, with what is cut off by them
    /// before and behind.
    pub(crate) fn mappings(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let behind = self.pages.shifted();
        let islands = self.pages.minus(&behind).count();
        let within = self.starts.intersection(&self.pages).intersection(&behind).count();
        2 * islands.0 + within.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_island_takes_two_mappings_and_one_for_each_that_it_is_cut_into() {
        let mut islands = Islands::default();
        assert_eq!(islands.mappings(), 0);
        islands.put(10, 20);
        assert_eq!(islands.mappings(), 2);
        islands.put(40, 1);
        assert_eq!(islands.mappings(), 4);
        islands.put(15, 1);
        assert_eq!(islands.mappings(), 6, "a mapping in the midst of another makes three");
        islands.put(14, 3);
        assert_eq!(islands.mappings(), 6, "in place of it and its neighbours");
        islands.put(30, 10);
        assert_eq!(islands.mappings(), 6, "it joins two islands, and is a third mapping");
        islands.put(511, 1);
        islands.put(64, 64);
        assert_eq!(islands.mappings(), 10);
    }
}
