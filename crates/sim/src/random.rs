/// Random numbers that are the same for the same seed on every machine and for ever: SplitMix64
/// (Steele, Lea and Flood 2014). A crate's generators may change between its versions, and with
/// them every scenario's golden values.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of `seed` and `stream`: one stream for each use, so that one VM's draws never
    /// shift another's.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd605_1b29_4a8c_e3f7));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number from 0 up to, not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever_and_they_are_even() {
        let mut random = Random::new(7, 3);
        let first: Vec<u64> = (0..2).map(|_| random.next()).collect();
        let mut again = Random::new(7, 3);
        assert_eq!(first, [again.next(), again.next()]);
        assert_ne!(Random::new(7, 4).next(), first[0]);
        let mean = (0..10_000).map(|_| random.unit()).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }
}
