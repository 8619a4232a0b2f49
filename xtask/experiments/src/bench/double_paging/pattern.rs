//! In which order a program touches its pages.

/// In which order a program touches its pages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    /// One after the other, and again.
    Scan,
    /// Each as likely as any other.
    Uniform,
    /// Four of five touches go to a fifth of the pages.
    Skewed,
}

impl Pattern {
    /// The page of `pages` that touch number `index` goes to.
    pub(super) fn page(self, index: usize, pages: usize, random: &mut fastrand::Rng) -> usize {
        let hot = pages / 5;
        match self {
            Self::Scan => index % pages,
            Self::Uniform => random.usize(..pages),
            Self::Skewed if random.u8(..5) < 4 => random.usize(..hot),
            Self::Skewed => random.usize(hot..pages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_touch_what_they_say() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut touches = |pattern: Pattern| -> Vec<usize> {
            (0..10_000).map(|index| pattern.page(index, 100, &mut random)).collect()
        };
        assert_eq!(touches(Pattern::Scan)[98..102], [98, 99, 0, 1]);
        let in_fifth = |touches: &[usize]| touches.iter().filter(|&&page| page < 20).count();
        assert!((1_800..2_200).contains(&in_fifth(&touches(Pattern::Uniform))));
        assert!((7_800..8_200).contains(&in_fifth(&touches(Pattern::Skewed))));
    }
}
