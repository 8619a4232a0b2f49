use crate::state::State;

/// The mechanisms that reclaim memory in a state (Waldspurger 2002, section 6.3).
///
/// | state | balloon | compression and swap | block |
/// |---|---|---|---|
/// | high, clear | no | no VM | no |
/// | soft | yes | where ballooning is impossible or too slow; while strained every VM above its target | no |
/// | hard | yes | every VM above its target | no |
/// | low | yes | every VM above its target | yes |
///
/// A host is strained where balloons have not sufficed for too long
/// ([`States::is_strained`](crate::States::is_strained)). The paper leaves them to it; but Linux
/// fills a balloon with free pages first, and as long as these hold nothing it brings nothing.
///
/// The paper knows no state clear; ESXi breaks large pages in it, which reclaims nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms {
    /// Balloons inflate to reach their VMs' targets.
    pub balloon: bool,
    /// The VMs whose pages are compressed, and swapped out where compression does not suffice.
    pub paging: Paging,
    /// VMs above their targets wait.
    pub block: bool,
}

/// The VMs whose pages are compressed and swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paging {
    /// No VM.
    Off,
    /// VMs above their targets, for the memory that their balloons cannot take: all of it where the
    /// driver is missing or stuck, and the part beyond the largest balloon (Waldspurger 2002,
    /// section 3.3, names the upper bound among these cases).
    WhereNoBalloonCan,
    /// All VMs above their targets.
    Everybody,
}

impl Mechanisms {
    /// The mechanisms of `state` on a host that is not strained.
    pub fn of(state: State) -> Self {
        let paging = match state {
            State::High | State::Clear => Paging::Off,
            State::Soft => Paging::WhereNoBalloonCan,
            State::Hard | State::Low => Paging::Everybody,
        };
        Self { balloon: state >= State::Soft, paging, block: state == State::Low }
    }

    /// These mechanisms on a host that is strained.
    #[must_use]
    pub fn strained(self) -> Self {
        match self.paging {
            Paging::Off => self,
            Paging::WhereNoBalloonCan | Paging::Everybody => Self { paging: Paging::Everybody, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worse_state_stops_nothing_that_a_better_one_runs() {
        let states = [State::High, State::Clear, State::Soft, State::Hard, State::Low].map(Mechanisms::of);
        for pair in states.windows(2) {
            assert!(pair[0].balloon <= pair[1].balloon && pair[0].paging <= pair[1].paging);
            assert!(pair[0].block <= pair[1].block);
        }
        assert_eq!(states[0], Mechanisms { balloon: false, paging: Paging::Off, block: false });
        let soft = Mechanisms { balloon: true, paging: Paging::WhereNoBalloonCan, block: false };
        assert_eq!((states[1], states[2]), (states[0], soft));
        assert_eq!(states[4], Mechanisms { balloon: true, paging: Paging::Everybody, block: true });
        let all = Mechanisms { paging: Paging::Everybody, ..soft };
        let strained = [states[0], states[1], all, states[3], states[4]];
        assert_eq!(states.map(Mechanisms::strained), strained);
    }
}
