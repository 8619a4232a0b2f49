//! The history: readings of what VMs used and had.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_protocol::history::{History, Sample};
use plimsoll_protocol::{Percent, VmName};
use plimsoll_units::Pages;

use crate::core::Clock;

/// Time between two records. What is active counts half after 15 s: at 5 s no step of it is lost;
/// more often would only cost memory.
pub(crate) const PERIOD: Duration = Duration::from_secs(5);
/// Most records of all VMs together, some 40 MiB of memory: with 100 VMs they reach back for three
/// hours and a half, with 1000 for twenty minutes. More would have to be paid by every host; for
/// longer, ask again and keep the answers.
pub(crate) const MOST: usize = 1 << 18;
/// Longest that a record is kept, so that a host with one VM does not answer with weeks.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// One VM at one time, without the time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) vm: VmName,
    pub(crate) active: Pages,
    pub(crate) held: Pages,
    pub(crate) entitlement: Pages,
    pub(crate) ballooned: Pages,
    pub(crate) shared: Pages,
    pub(crate) zero: Pages,
    pub(crate) saved: Pages,
    pub(crate) compressed: Pages,
    pub(crate) swapped: Pages,
    /// Written to swap space, and read from there, in a second.
    pub(crate) swap_rates: (Pages, Pages),
    /// Parts of the time since the last reading in which some of it, and all of it, was stalled.
    pub(crate) stall: (Percent, Percent),
}

/// The latest readings of all VMs, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    moments: VecDeque<Moment>,
    readings: usize,
}

/// The readings of all VMs at one time. Others may keep them while the recorder forgets them.
#[derive(Clone, Debug, PartialEq)]
struct Moment {
    at: Timestamp,
    /// The same by the clock that nobody sets: by it they grow old.
    now: Instant,
    readings: Arc<[Reading]>,
}

impl Recorder {
    /// Whether it is time for the next readings.
    pub(crate) fn is_due(&self, clock: Clock) -> bool {
        self.moments.back().is_none_or(|last| clock.now.duration_since(last.now) >= PERIOD)
    }

    /// Keeps the readings of one moment, and forgets the oldest where there are too many.
    pub(crate) fn push(&mut self, clock: Clock, readings: Vec<Reading>) {
        let Clock { now, at } = clock;
        self.readings += readings.len();
        self.moments.push_back(Moment { at, now, readings: readings.into() });
        let old = |moment: &Moment| now.duration_since(moment.now) > LONGEST;
        while self.moments.len() > 1 && (self.readings > MOST || self.moments.front().is_some_and(old)) {
            self.readings -= self.moments.pop_front().map_or(0, |moment| moment.readings.len());
        }
    }

    /// The moments after `after`, or all: at most the first `most`. No reading is copied.
    pub(crate) fn after(&self, after: Option<Timestamp>, most: usize) -> Recording {
        // The clock for people may have been set back: a moment that is known is found as it is,
        // one that is forgotten by its time.
        let first = after.and_then(|after| {
            let last = |is: fn(&Timestamp, &Timestamp) -> bool| {
                self.moments.iter().rposition(|moment| is(&moment.at, &after))
            };
            last(Timestamp::eq).or_else(|| last(Timestamp::le))
        });
        let rest = self.moments.range(first.map_or(0, |first| first + 1)..);
        let more = rest.len() > most;
        Recording { moments: rest.take(most).cloned().collect(), more }
    }
}

/// A part of what was recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recording {
    moments: Vec<Moment>,
    /// There are later ones.
    more: bool,
}

impl Recording {
    /// The most samples that there are of `vm`, or of all: none is looked at.
    pub(crate) fn most(&self, vm: Option<&VmName>) -> usize {
        match vm {
            // A VM has at most one of each moment.
            Some(_) => self.moments.len(),
            None => self.moments.iter().map(|moment| moment.readings.len()).sum(),
        }
    }

    /// The readings of `vm`, or of all.
    pub(crate) fn history(&self, vm: Option<&VmName>, now: Timestamp) -> History {
        let wanted = |reading: &&Reading| vm.is_none_or(|vm| reading.vm == *vm);
        let since = self.moments.iter().find(|moment| moment.readings.iter().any(|r| wanted(&r)));
        let since = since.map_or(now, |moment| moment.at);
        let seconds = |at: Timestamp| u64::try_from(at.duration_since(since).as_secs()).unwrap_or(0);
        let sample = |at: Timestamp, reading: &Reading| Sample {
            seconds: seconds(at),
            vm: reading.vm.clone(),
            active: reading.active.bytes(),
            held: reading.held.bytes(),
            entitlement: reading.entitlement.bytes(),
            ballooned: reading.ballooned.bytes(),
            shared: reading.shared.bytes(),
            zero: reading.zero.bytes(),
            saved: reading.saved.bytes(),
            compressed: reading.compressed.bytes(),
            swapped: reading.swapped.bytes(),
            out_rate: reading.swap_rates.0.bytes(),
            in_rate: reading.swap_rates.1.bytes(),
            stall_some: reading.stall.0,
            stall_full: reading.stall.1,
        };
        let samples = self
            .moments
            .iter()
            .flat_map(|moment| moment.readings.iter().filter(wanted).map(|r| sample(moment.at, r)))
            .collect();
        let next = self.moments.last().filter(|_| self.more).map(|moment| moment.at);
        History { since, period: PERIOD.as_secs(), samples, next }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    /// The clock after so many seconds, of which people's is set to `shown`.
    fn clock(seconds: u64, shown: i64) -> Clock {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        Clock { now: *BEGIN + Duration::from_secs(seconds), at: at(shown) }
    }

    /// The same, of a clock that nobody sets.
    fn after(seconds: u64) -> Clock {
        clock(seconds, seconds.try_into().unwrap())
    }

    impl Reading {
        /// A reading of `vm` in which each number is another one.
        pub(crate) fn example(vm: &str, active: u64) -> Self {
            Self {
                vm: vm.parse().unwrap(),
                active: Pages(active),
                held: Pages(2),
                entitlement: Pages(3),
                ballooned: Pages(4),
                shared: Pages(5),
                zero: Pages(6),
                saved: Pages(7),
                compressed: Pages(8),
                swapped: Pages(9),
                swap_rates: (Pages(10), Pages(11)),
                stall: (Percent::WHOLE, Percent::default()),
            }
        }
    }

    #[test]
    fn a_history_begins_with_its_first_sample() {
        let mut recorder = Recorder::default();
        assert!(recorder.is_due(after(0)));
        recorder.push(after(0), vec![Reading::example("a", 1)]);
        assert!(!recorder.is_due(after(4)) && recorder.is_due(after(5)));
        recorder.push(after(5), vec![Reading::example("a", 2), Reading::example("b", 3)]);
        recorder.push(after(10), vec![Reading::example("b", 4)]);
        let all = recorder.after(None, usize::MAX).history(None, at(12));
        let times = |h: &History| h.samples.iter().map(|s| (s.seconds, s.vm.to_string())).collect::<Vec<_>>();
        assert_eq!(times(&all), [(0, "a".into()), (5, "a".into()), (5, "b".into()), (10, "b".into())]);
        let b = recorder.after(None, usize::MAX).history(Some(&"b".parse().unwrap()), at(12));
        assert_eq!((b.since, times(&b)), (at(5), vec![(0, "b".into()), (5, "b".into())]));
        assert_eq!(recorder.after(None, usize::MAX).history(Some(&"c".parse().unwrap()), at(12)).samples, []);
    }

    #[test]
    fn pages_of_a_history_are_the_whole() {
        let mut recorder = Recorder::default();
        for i in 0..10 {
            recorder.push(after(i * 5), vec![Reading::example("a", 1), Reading::example("b", 2)]);
        }
        let whole = recorder.after(None, usize::MAX).history(None, at(99));
        assert_eq!((whole.samples.len(), whole.next), (20, None));
        let (mut pages, mut next) = (Vec::new(), None);
        loop {
            let page = recorder.after(next, 3).history(None, at(99));
            assert!(page.samples.len() <= 6);
            let ago = u64::try_from(page.since.duration_since(whole.since).as_secs()).unwrap();
            pages.extend(page.samples.into_iter().map(|s| Sample { seconds: s.seconds + ago, ..s }));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(pages, whole.samples);
        assert_eq!(recorder.after(Some(at(45)), 3), Recording::default());
        // The clock is set back, and nothing is left out for that.
        recorder.push(clock(50, 20), vec![Reading::example("c", 1)]);
        assert_eq!(recorder.after(Some(at(40)), 9).history(None, at(99)).samples.len(), 3);
        // A recording that is being written is not copied, nor changed by what comes.
        let kept = recorder.after(None, 1);
        recorder.push(after(200_000), vec![Reading::example("a", 1)]);
        assert_eq!(kept.history(None, at(99)).samples.len(), 2);
    }

    #[test]
    fn neither_time_nor_a_crowd_fills_memory() {
        let mut recorder = Recorder::default();
        let crowd: Vec<Reading> = (0..1000).map(|i| Reading::example(&format!("vm{i}"), 1)).collect();
        for i in 0..400 {
            recorder.push(after(i * 5), crowd.clone());
        }
        assert_eq!(recorder.after(None, usize::MAX).history(None, at(0)).samples.len(), MOST / 1000 * 1000);
        recorder.push(after(100_000), vec![Reading::example("a", 1)]);
        assert_eq!(recorder.after(None, usize::MAX).history(None, at(0)).samples.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_empties_no_record() {
        let mut recorder = Recorder::default();
        for (seconds, shown) in [(0, 0), (5, 1_000_000), (10, -1_000_000)] {
            assert!(recorder.is_due(clock(seconds, shown)));
            recorder.push(clock(seconds, shown), vec![Reading::example("a", 1)]);
            assert!(!recorder.is_due(clock(seconds + 4, shown + 2_000_000)));
        }
        assert_eq!(recorder.after(None, usize::MAX).history(None, at(0)).samples.len(), 3);
    }
}
