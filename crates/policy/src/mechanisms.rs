use crate::State;

/// Which mechanisms reclaim memory (Waldspurger 2002, section 6.3).
///
/// | state | balloon | compression and swap | block |
/// |---|---|---|---|
/// | high, clear | no | nobody | no |
/// | soft | yes | where ballooning is impossible | no |
/// | hard | yes | everybody above target | no |
/// | low | yes | everybody above target | yes |
///
/// The paper knows no state clear; ESXi breaks large pages in it, which reclaims nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms {
    /// Balloons inflate to reach their VMs' targets.
    pub balloon: bool,
    /// From whom pages are compressed, and swapped out where compression does not suffice.
    pub paging: Paging,
    /// VMs above their targets wait.
    pub block: bool,
}

/// From whom pages are compressed and swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paging {
    /// From nobody.
    Off,
    /// What no balloon can take: all of it from a VM without a driver or with one that does not
    /// follow, and what lies beyond the largest balloon (Waldspurger 2002, section 3.3, counts the
    /// upper bound among these).
    WhereNoBalloonCan,
    /// From all that are above their targets.
    Everybody,
}

impl Mechanisms {
    /// Those that run in `state`.
    pub fn of(state: State) -> Self {
        let paging = match state {
            State::High | State::Clear => Paging::Off,
            State::Soft => Paging::WhereNoBalloonCan,
            State::Hard | State::Low => Paging::Everybody,
        };
        Self { balloon: state >= State::Soft, paging, block: state == State::Low }
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
    }
}
