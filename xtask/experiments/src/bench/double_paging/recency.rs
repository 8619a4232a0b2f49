//! Pages in the order of their last touch.

use std::collections::BTreeMap;

/// Pages in the order of their last touch.
#[derive(Debug)]
pub(super) struct Recency {
    clock: usize,
    /// When each page was touched last.
    last: Vec<usize>,
    order: BTreeMap<usize, usize>,
}

impl Recency {
    /// For pages 0 to `pages - 1`, as if they had been touched in this order.
    pub(super) fn new(pages: usize) -> Self {
        Self {
            clock: pages,
            last: (0..pages).collect(),
            order: (0..pages).map(|page| (page, page)).collect(),
        }
    }

    /// Notes that `page` is touched now.
    pub(super) fn touch(&mut self, page: usize) {
        let last = std::mem::replace(&mut self.last[page], self.clock);
        self.order.remove(&last);
        self.order.insert(self.clock, page);
        self.clock += 1;
    }

    /// All pages, the least recently touched first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_page_is_the_one_that_was_not_touched_for_longest() {
        let mut recency = Recency::new(4);
        [0, 1, 2, 0, 2, 1].into_iter().for_each(|page| recency.touch(page));
        assert_eq!(recency.oldest().collect::<Vec<_>>(), [3, 0, 2, 1]);
    }
}
