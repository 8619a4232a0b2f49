use std::time::{Duration, Instant};

use super::{Core, RunId};

/// Events that one VMM may cause at once. Fewer, and what an honest VMM had to tell while there was
/// no daemon is lost; more, and some VMMs together push everybody else's events out of memory.
const BURST: u32 = 16;
/// Then one more each time that this has passed. Less, and a VMM fills the daemon's log.
const EVERY: Duration = Duration::from_secs(10);

/// How many events a VMM may still cause by what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    left: u32,
    since: Instant,
    /// Events that were left out since one was told.
    left_out: u64,
}

impl Noise {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now, left_out: 0 }
    }

    /// Asks for one event. Returns how many were left out before it; `None`: it is left out, too.
    fn tell(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.since);
        let more = u32::try_from(passed.as_nanos() / EVERY.as_nanos()).unwrap_or(u32::MAX);
        if more > 0 {
            (self.left, self.since) = (self.left.saturating_add(more).min(BURST), now);
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Core {
    /// Adds an event that a VMM causes by what it says: it cannot cause any number of them.
    pub(super) fn told_by(&mut self, id: RunId, text: impl Into<String>) {
        let now = self.clock.now;
        let Some(run) = self.run_mut(id) else { return };
        let Some(left_out) = run.noise.tell(now) else { return };
        let name = run.vm.clone();
        if left_out > 0 {
            self.event(Some(&name), format!("{left_out} events are left out: its VMM causes too many"));
        }
        self.event(Some(&name), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_events_is_told_at_a_bounded_rate_and_what_is_left_out_is_counted() {
        let begin = Instant::now();
        let mut noise = Noise::new(begin);
        let mut told = Vec::new();
        for ms in 0..60_000 {
            told.extend(noise.tell(begin + Duration::from_millis(ms)));
        }
        assert_eq!(told.len(), 16 + 5);
        assert!(told[..16].iter().all(|left_out| *left_out == 0) && told[17..] == [9_999; 4], "{told:?}");
        let later = begin + Duration::from_secs(3600);
        assert_eq!((0..100).filter_map(|_| noise.tell(later)).count(), 16, "a quiet hour is no credit");
    }
}
