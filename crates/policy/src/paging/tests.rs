use super::*;
use crate::balloon::Sizing;
use crate::decision::PagingCause;
use crate::demo_host::{decide, host, mib, vm};
use crate::state::State;
use crate::vm::{Driver, Pageable};

#[test]
fn who_does_not_follow_is_taken_by_the_next_mechanism_alone() {
    let vms = [Driver::Follows, Driver::Absent, Driver::Stuck].map(|driver| Vm { driver, ..vm(200, 0, 0) });
    let vms = [vms[0], vms[1], vms[2], vm(0, 256, 0)];
    let sizings = [Sizing::FollowsTarget, Sizing::NoDriver, Sizing::Stuck];
    let decisions = decide(&host(0, State::Soft), &vms);
    for (decision, sizing) in decisions.iter().zip(sizings) {
        let reclaim = decision.reclaim;
        let above = mib(200) - decision.target;
        assert_eq!(decision.sizing, sizing);
        if sizing == Sizing::FollowsTarget {
            assert_eq!(reclaim, Reclaim { balloon: above, ..Reclaim::default() });
        } else {
            assert_eq!((reclaim.balloon, reclaim.compression + reclaim.swap), (Pages(0), above));
        }
    }
    // The store for compressed pages is bounded: the rest is swapped.
    let [_, absent, _, _] = vms;
    let full =
        [vms[0], Vm { pageable: Pageable { store: mib(1), ..absent.pageable }, ..absent }, vms[2], vms[3]];
    let [before, after] = [decisions[1], decide(&host(0, State::Soft), &full)[1]].map(|d| d.reclaim);
    assert_eq!((after.compression, after.swap), (mib(1), before.compression + before.swap - mib(1)));
    // No amount exceeds the pages that can be taken, and a VM that can give none is not blocked.
    let bare = [vms[0], Vm { pageable: Pageable::default(), ..absent }, vms[2], vms[3]];
    let cannot = decide(&host(0, State::Low), &bare)[1].reclaim;
    assert_eq!((cannot.compression, cannot.swap, cannot.block), (Pages(0), Pages(0), Pages(0)));
    // In state hard VMs with a balloon are paged too, and in state low all VMs above target wait.
    let hard = decide(&host(0, State::Hard), &vms)[0].reclaim;
    assert!(hard.balloon > Pages(0) && hard.swap > Pages(0) && hard.block == Pages(0), "{hard:?}");
    let low = decide(&host(0, State::Low), &vms);
    assert!(low[..3].iter().all(|d| d.reclaim.block == mib(200) - d.target && d.reclaim.block > Pages(0)));
}

#[test]
fn what_is_owed_is_paged_out_of_those_above_their_targets_at_once() {
    let rich = vm(200, 0, 0);
    let needy = vm(50, 256, 40);
    // Memory is not short yet: balloons suffice.
    let roomy = host(150, State::High);
    let needs =
        |free, wanted| decide(&host(free, State::High), &[rich, rich, Vm { wanted: mib(wanted), ..needy }]);
    assert!(decide(&roomy, &[rich, rich, needy]).iter().all(|d| d.pages.is_none()));
    let reserve = host(0, State::High).thresholds.reserve();
    let decisions = needs(41, 40);
    let paged: Pages = decisions.iter().map(|d| d.reclaim.compression + d.reclaim.swap).sum();
    let due = mib(40) - (mib(41) - reserve);
    assert!((due.0..=due.0 + 2).contains(&paged.0), "{decisions:?}");
    for d in &decisions[..2] {
        assert_eq!(
            (d.pages, d.level),
            (Some(PagingCause::Owed), mib(200) - d.reclaim.compression - d.reclaim.swap)
        );
        assert!(d.level >= d.target && d.reclaim.block == Pages(0));
    }
    assert_eq!((decisions[2].pages, decisions[2].level), (None, mib(256)));
    // Free memory that another VM has reserved is not there for it.
    let reserved = Host { withheld: mib(140), ..host(150, State::High) };
    let decisions = decide(&reserved, &[rich, rich, needy]);
    assert!(decisions[..2].iter().all(|d| d.pages == Some(PagingCause::Owed)), "{decisions:?}");
}

#[test]
fn who_is_owed_nothing_helps_himself() {
    let limited = |held, limit| {
        let mut vm = vm(held, held, 0);
        vm.member.client.limit = mib(limit);
        vm
    };
    let roomy = host(300, State::High);
    let waited = |waited| Vm { waited, ..vm(100, 100, 50) };
    let decisions = decide(&roomy, &[limited(100, 100), limited(99, 100), waited(true), waited(false)]);
    let levels: Vec<_> = decisions.iter().map(|d| (d.level, d.pages)).collect();
    let (at, in_vain) = (Some(PagingCause::AtLimit), Some(PagingCause::Waited));
    assert_eq!(levels, [(mib(100), at), (mib(100), None), (mib(100), in_vain), (mib(256), None)]);
    // A VM above its limit goes down to it, and does not grow until it is there.
    let lowered = decide(&roomy, &[limited(200, 100)])[0];
    assert_eq!((lowered.pages, lowered.level), (Some(PagingCause::AtLimit), mib(200)));
    let no_balloon = decide(&roomy, &[Vm { driver: Driver::Absent, ..limited(200, 100) }])[0];
    assert_eq!((no_balloon.pages, no_balloon.level), (Some(PagingCause::AboveTarget), mib(100)));
}
