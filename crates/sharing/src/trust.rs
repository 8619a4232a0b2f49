/// Whether a member's digests are trusted.
///
/// A frame that proves false costs others time: pages are compared with it and not shared
/// (`blame.rs` says when it does). A member most of whose frames prove false is ignored for a
/// while, which grows each time. In the paper a page that matched falsely is not shared
/// (Waldspurger 2002, section 4.2). Here the member is judged, because a page's next content may be
/// good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trust {
    named: u32,
    proved_false: u32,
    /// Look-ups until it is trusted again.
    ignored: u32,
    /// How often it lost trust lately.
    lapses: u32,
}

/// References named before a judgement. Fewer, and an unlucky start would count for much; more, and
/// a flood costs that many copies.
const SOME: u32 = 128;
/// After this many references, the counts so far are halved.
const MANY: u32 = 4096;
/// Look-ups that are not answered the first time: a pass over 256 MiB.
const PENALTY: u32 = 1 << 16;
/// Most doublings of it: a pass over 64 GiB.
const MOST_DOUBLINGS: u32 = 8;

impl Trust {
    /// Counts a reference that was named to the member because of its digest.
    pub(crate) fn named(&mut self) {
        self.named += 1;
        if self.named >= MANY {
            self.named /= 2;
            self.proved_false /= 2;
            self.lapses = self.lapses.saturating_sub(1);
        }
    }

    /// Counts a digest that proved false.
    pub(crate) fn proved_false(&mut self) {
        self.proved_false = self.proved_false.saturating_add(1);
        if self.named.max(self.proved_false) >= SOME && self.proved_false > self.named / 2 {
            *self = Self {
                named: 0,
                proved_false: 0,
                ignored: PENALTY << self.lapses.min(MOST_DOUBLINGS),
                lapses: self.lapses.saturating_add(1),
            };
        }
    }

    /// Counts a look-up of `pages` pages. Returns whether it is to be answered.
    pub(crate) fn looks_up(&mut self, pages: usize) -> bool {
        let doubted = self.doubted();
        self.ignored = self.ignored.saturating_sub(u32::try_from(pages).unwrap_or(u32::MAX));
        !doubted
    }

    /// Whether the member is ignored for now.
    pub(crate) fn doubted(&self) -> bool {
        self.ignored > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lose(trust: &mut Trust) {
        for _ in 0..SOME {
            trust.named();
            trust.proved_false();
        }
    }

    #[test]
    fn who_errs_at_times_is_believed() {
        let mut trust = Trust::default();
        for turn in 0..100_000 {
            trust.named();
            if turn % 3 == 0 {
                trust.proved_false();
            }
            assert!(!trust.doubted(), "after {turn}");
        }
    }

    #[test]
    fn who_errs_mostly_is_left_alone_for_a_growing_while() {
        let mut trust = Trust::default();
        let mut last = 0;
        for _ in 0..MOST_DOUBLINGS + 3 {
            lose(&mut trust);
            assert!(trust.doubted());
            let mut asked = 0_u64;
            while !trust.looks_up(512) {
                asked += 1;
            }
            assert!(asked >= last);
            last = asked;
        }
        assert_eq!(last, u64::from(PENALTY << MOST_DOUBLINGS) / 512);
    }

    #[test]
    fn a_long_good_past_does_not_excuse_much() {
        let mut trust = Trust::default();
        (0..1_000_000).for_each(|_| trust.named());
        let mut lies = 0;
        while !trust.doubted() {
            trust.named();
            trust.proved_false();
            lies += 1;
        }
        assert!((SOME..2 * MANY).contains(&lies), "{lies}");
    }

    #[test]
    fn a_lapse_is_forgiven_in_time() {
        let mut trust = Trust::default();
        lose(&mut trust);
        while !trust.looks_up(512) {}
        assert_eq!(trust.lapses, 1);
        (0..MANY).for_each(|_| trust.named());
        assert_eq!(trust.lapses, 0);
    }

    #[test]
    fn what_was_never_named_cannot_overflow() {
        let mut trust = Trust::default();
        (0..100_000).for_each(|_| trust.proved_false());
        assert!(trust.doubted());
    }
}
