use std::fmt;
use std::time::Duration;

use plimsoll_units::{Bytes, Pages};

/// The host's shortage of free machine memory, as in ESXi. Ordered from plenty to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum State {
    /// At least minFree is free: no memory is reclaimed.
    High,
    /// Less than minFree is free: VMs get no more memory beyond their entitlements.
    Clear,
    /// Balloons reclaim memory. Where they have not sufficed for ten seconds pages are compressed
    /// and swapped out as well.
    Soft,
    /// Balloons do not suffice: pages are compressed and swapped out.
    Hard,
    /// VMs above their targets wait.
    Low,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::High => "high",
            Self::Clear => "clear",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        })
    }
}

/// Amounts of free memory at which the state changes.
///
/// All derive from minFree with ESXi's percentages. The host enters a state when free memory falls
/// below the threshold of that name. `high`, 400 %, is the aim of reclamation and no edge of a
/// state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Reclamation that has begun aims at this much free memory: 400 % of minFree.
    pub high: Pages,
    /// Below: clear. 100 % of minFree.
    pub clear: Pages,
    /// Below: soft. 64 %.
    pub soft: Pages,
    /// Below: hard. 32 %.
    pub hard: Pages,
    /// Below: low. 16 %.
    pub low: Pages,
}

impl Thresholds {
    /// ESXi's thresholds for a host of `budget`: minFree slides, 6 % of the first 4 GiB, 4 % up to
    /// 12, 2 % up to 28, 1 % beyond (ESXi, `Mem.MinFreePct`).
    pub fn sliding(budget: Bytes) -> Self {
        const GIB: u64 = 1 << 30;
        let bands =
            [(0, 4 * GIB, 6), (4 * GIB, 12 * GIB, 4), (12 * GIB, 28 * GIB, 2), (28 * GIB, u64::MAX, 1)];
        let min_free = bands
            .iter()
            .map(|&(from, to, percent)| budget.0.clamp(from, to).saturating_sub(from) / 100 * percent)
            .sum();
        Self::of_min_free(Bytes(min_free))
    }

    /// The paper's fixed percentages: high at 6 % free, soft at 4, hard at 2, low at 1 (Waldspurger
    /// 2002, section 6.3). The paper knows no state clear: here it lies between high and soft.
    pub fn fixed(budget: Bytes) -> Self {
        let percent = |p: u64| Pages::ceil(Bytes(budget.0 / 100 * p + budget.0 % 100 * p / 100));
        Self { high: percent(6), clear: percent(6), soft: percent(4), hard: percent(2), low: percent(1) }
    }

    /// The thresholds that follow from the operator's minFree.
    pub fn of_min_free(min_free: Bytes) -> Self {
        let percent = |p: u64| Pages::ceil(Bytes(min_free.0 / 100 * p + min_free.0 % 100 * p / 100));
        Self {
            high: percent(400),
            clear: percent(100),
            soft: percent(64),
            hard: percent(32),
            low: percent(16),
        }
    }

    /// The free memory that VMs with nearly all of their entitlements leave to VMs with less:
    /// halfway between soft and hard. If higher, VMs below their entitlements wait and page for
    /// themselves although memory is free. If lower, many VMs that lack a little bring the host to
    /// state hard for good, and nothing is left for a VM that has just started.
    pub fn reserve(&self) -> Pages {
        Pages(u64::midpoint(self.soft.0, self.hard.0))
    }

    fn floor_of(&self, state: State) -> Pages {
        match state {
            State::High => self.clear,
            State::Clear => self.soft,
            State::Soft => self.hard,
            State::Hard => self.low,
            State::Low => Pages::ZERO,
        }
    }
}

/// The host's state over time. It worsens at once. It improves only when free memory exceeds the
/// better state's edge by an eighth ("significantly", Waldspurger 2002, section 6.3). So free
/// memory that wobbles by less never makes the state flap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    current: State,
    /// Time in state soft and worse, less the time in better ones since, up to
    /// [`States::STRAIN`].
    strain: Duration,
}

impl Default for States {
    fn default() -> Self {
        Self { current: State::High, strain: Duration::ZERO }
    }
}

impl States {
    /// The time after which balloons are helped that have not brought the host out of state soft.
    /// If less, guests that turn busy together are paged although their balloons are about to bring
    /// memory (`plimsoll plan vdi-morning`: without it three quarters more are swapped out).
    /// If more, VMs wait longer where balloons are slow, or take in free pages that hold nothing.
    pub const STRAIN: Duration = Duration::from_secs(10);

    /// The state after the last reading.
    pub fn current(&self) -> State {
        self.current
    }

    /// Whether balloons alone have not sufficed for too long: see
    /// [`Mechanisms`](crate::Mechanisms).
    pub fn is_strained(&self) -> bool {
        self.current >= State::Soft && self.strain >= Self::STRAIN
    }

    /// Takes note that the state has been the current one for `elapsed`.
    pub fn pass(&mut self, elapsed: Duration) {
        self.strain = if self.current >= State::Soft {
            self.strain.saturating_add(elapsed).min(Self::STRAIN)
        } else {
            self.strain.saturating_sub(elapsed)
        };
    }

    /// Takes a new reading of free memory and returns the state that follows.
    pub fn observe(&mut self, free: Pages, thresholds: &Thresholds) -> State {
        const ORDER: [State; 5] = [State::High, State::Clear, State::Soft, State::Hard, State::Low];
        let fits = |state: &State| {
            let floor = thresholds.floor_of(*state);
            let edge = if *state < self.current { floor + Pages(floor.0 / 8) } else { floor };
            free >= edge
        };
        self.current = ORDER.into_iter().find(fits).unwrap_or(State::Low);
        self.current
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn min_free_slides_as_esxi_documents() {
        let clear = |gib: u64| Thresholds::sliding(Bytes::mib(gib << 10)).clear.bytes();
        assert_eq!(clear(4).0 >> 20, 245);
        // ESXi's published example: a host of 100 GB keeps 6 % of 4, 4 % of 8, 2 % of 16 and 1 % of
        // 72 GB: 1.6 GB.
        assert_eq!(clear(100).0 >> 20, 1638);
    }

    #[test]
    fn the_papers_percentages_lead_to_the_papers_states() {
        let thresholds = Thresholds::fixed(Bytes::mib(1000));
        let mut states = States::default();
        let course = [
            (61, State::High),
            (59, State::Clear),
            (41, State::Clear),
            (39, State::Soft),
            (19, State::Hard),
            (9, State::Low),
            // Up again only after significantly exceeding the threshold.
            (11, State::Low),
            (12, State::Hard),
            (68, State::High),
        ];
        for (mib, state) in course {
            assert_eq!(states.observe(Pages::floor(Bytes::mib(mib)), &thresholds), state, "{mib} MiB");
        }
    }

    #[test]
    fn every_state_is_reached_on_the_way_down_and_left_on_the_way_up() {
        let thresholds = Thresholds::of_min_free(Bytes::mib(100));
        let mut states = States::default();
        let course =
            [(150, State::High), (99, State::Clear), (63, State::Soft), (31, State::Hard), (15, State::Low)];
        for (mib, state) in course {
            assert_eq!(states.observe(Pages::floor(Bytes::mib(mib)), &thresholds), state, "{mib} MiB");
        }
        assert_eq!(states.observe(Pages::floor(Bytes::mib(17)), &thresholds), State::Low);
        assert_eq!(states.observe(Pages::floor(Bytes::mib(200)), &thresholds), State::High);
    }

    #[test]
    fn a_host_that_stays_soft_is_strained_and_one_that_is_well_at_times_later() {
        let thresholds = Thresholds::of_min_free(Bytes::mib(100));
        let mut states = States::default();
        let mut rest = |mib: u64, seconds: u64| {
            states.observe(Pages::floor(Bytes::mib(mib)), &thresholds);
            states.pass(Duration::from_secs(seconds));
            states.is_strained()
        };
        assert_eq!([rest(150, 3600), rest(60, 9), rest(60, 1)], [false, false, true]);
        // Not while there is enough, and again sooner than after a rest.
        assert_eq!([rest(90, 4), rest(60, 3), rest(60, 1)], [false, false, true]);
        assert_eq!([rest(90, 3600), rest(60, 9), rest(20, 1)], [false, false, true]);
    }

    proptest! {
        #[test]
        fn a_wobble_within_the_hysteresis_never_flaps(
            edge in 0usize..4, fixed: bool, start in 0u64..200_000, wobble in prop::collection::vec(0u64..100, 2..50),
        ) {
            let budget = Bytes::mib(6400);
            let thresholds =
                if fixed { Thresholds::fixed(budget) } else { Thresholds::of_min_free(Bytes::mib(400)) };
            let floor = [thresholds.clear, thresholds.soft, thresholds.hard, thresholds.low][edge];
            let mut states = States::default();
            states.observe(Pages(start), &thresholds);
            // From any start, the first readings below and above the edge settle the state.
            let (low, high) = (Pages(floor.0 - 1), Pages(floor.0 - 1 + floor.0 / 8));
            states.observe(high, &thresholds);
            let settled = states.observe(low, &thresholds);
            for w in wobble {
                let free = Pages(low.0 + w * (high.0 - low.0) / 100);
                prop_assert_eq!(states.observe(free, &thresholds), settled);
            }
        }
    }
}
