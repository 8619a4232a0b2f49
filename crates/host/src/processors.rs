//! How busy the host's processors are, from `/proc/stat`.

use std::time::Duration;

/// How many processors the host has, and how idle they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Processors {
    /// The part of their time that was idle lately, 0 to 1.
    pub(crate) idle: f64,
    pub(crate) number: u32,
}

/// What all processors did since the machine was booted, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    idle: u64,
    all: u64,
    number: u32,
}

impl Times {
    /// As they are now; `None` where the machine does not tell.
    pub(crate) fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// From a line such as `cpu  user nice system idle iowait irq softirq steal guest guest_nice`;
    /// guests' time is part of the user's.
    fn parse(text: &str) -> Option<Self> {
        let total = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<u64> = total.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
        let [_, _, _, idle, waiting, ..] = times[..] else { return None };
        let number = text.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
        Some(Self {
            idle: idle.saturating_add(waiting),
            all: times.iter().fold(0, |sum, n| sum.saturating_add(*n)),
            number: u32::try_from(number).ok()?,
        })
    }
}

/// Turns counts since boot into what the processors did lately.
///
/// Busy processors are believed at once, idle ones only as that lasts: work in idle time must stop
/// as soon as VMs want the processors.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    last: Option<Times>,
    idle: f64,
}

impl Busy {
    /// How often the processors are looked at. The kernel counts their time in ticks of 1 to 10 ms.
    pub(crate) const EVERY: Duration = Duration::from_secs(1);
    /// The part of newly idle time that each reading adds.
    const BELIEVED: f64 = 0.25;

    /// Takes a new reading; `None`: it is the first.
    pub(crate) fn observe(&mut self, now: Times) -> Option<Processors> {
        let before = self.last.replace(now)?;
        // Idle time is known to run backwards by a little.
        let (idle, all) = (now.idle.saturating_sub(before.idle), now.all.saturating_sub(before.all));
        if all == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a part")]
        let idle = (idle as f64 / all as f64).min(1.0);
        self.idle = idle.min(self.idle + (idle - self.idle) * Self::BELIEVED);
        Some(Processors { idle: self.idle, number: now.number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  10 0 10 60 20 0 0 0 5 0\ncpu0 5 0 5 30 10 0 0 0 5 0\ncpu1 5 0 5 30 10 0 0 0 0 0\nintr 1\n";

    #[test]
    fn idle_is_what_was_idle_between_two_readings() {
        let first = Times::parse(STAT).unwrap();
        assert_eq!(first, Times { idle: 80, all: 100, number: 2 });
        let mut busy = Busy::default();
        assert_eq!(busy.observe(first), None);
        let idle = Times { idle: 480, all: 500, number: 2 };
        assert_eq!(busy.observe(idle), Some(Processors { idle: 0.25, number: 2 }), "a quarter is believed");
        assert_eq!(busy.observe(idle), None);
        let idler = Times { idle: 880, all: 900, number: 2 };
        assert_eq!(busy.observe(idler), Some(Processors { idle: 0.4375, number: 2 }));
        let now_busy = Times { idle: 890, all: 1000, number: 2 };
        assert_eq!(busy.observe(now_busy), Some(Processors { idle: 0.1, number: 2 }), "at once");
        assert!(Times::read().is_some_and(|times| times.number > 0));
    }

    #[test]
    fn odd_texts_are_no_readings() {
        for odd in ["", "cpu", "cpu ", "cpu 1 2 x 4", "cpu0 1 2 3 4 5"] {
            assert_eq!(Times::parse(odd), None, "{odd}");
        }
    }
}
