use std::time::{Duration, Instant};

use plimsoll_policy::State;

/// How long a better state must last before operators are told of it. If shorter, a host that goes
/// to and fro between two states fills the list of events.
const LASTS: Duration = Duration::from_secs(10);

/// Which changes of the host's state operators are told of: a worse state than the last one that
/// they were told at once, a better one when it lasts.
#[derive(Debug)]
pub(super) struct StateNews {
    told: State,
    /// Since when the state has been better than that without a break.
    better: Option<Instant>,
}

impl Default for StateNews {
    fn default() -> Self {
        Self { told: State::High, better: None }
    }
}

impl StateNews {
    /// Takes the state at `now`, and returns whether to tell it.
    pub(super) fn observe(&mut self, state: State, now: Instant) -> bool {
        if state >= self.told {
            self.better = None;
        } else if now.duration_since(*self.better.get_or_insert(now)) < LASTS {
            return false;
        }
        let news = state != self.told;
        if news {
            *self = Self { told: state, better: None };
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states that are told of those of each second.
    fn reported(states: &[State]) -> Vec<(usize, State)> {
        let (begin, mut news) = (Instant::now(), StateNews::default());
        let observe = |(second, state): (usize, &State)| {
            let now = begin + Duration::from_secs(second as u64);
            news.observe(*state, now).then_some((second, *state))
        };
        states.iter().enumerate().filter_map(observe).collect()
    }

    #[test]
    fn worse_states_are_told_at_once_and_better_ones_when_they_last() {
        use State::{Clear, High, Low, Soft};
        let course = [&[High, Clear, Low, Soft][..], &[Clear; 20], &[High; 12]].concat();
        assert_eq!(reported(&course), [(1, Clear), (2, Low), (13, Clear), (34, High)]);
    }

    #[test]
    fn a_host_that_goes_to_and_fro_is_told_once() {
        let course = [State::High, State::Clear].repeat(100);
        assert_eq!(reported(&course), [(1, State::Clear)]);
    }
}
