use plimsoll_units::Bytes;
use proptest::prelude::*;

use super::*;
use crate::pool::{NamedPool, Pool};

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

fn thresholds() -> Thresholds {
    Thresholds::of_min_free(Bytes::mib(100))
}

/// A VM of 256 MiB that holds 100 and waits for 50 more.
fn waiting() -> Party {
    Party {
        pool: PoolId::ROOT,
        shares: 1000,
        stage: Stage::Running,
        granted: mib(100),
        certain: mib(100),
        wanted: mib(50),
        usable: mib(158),
        entitlement: mib(120),
        lent: Pages::ZERO,
        worth: mib(120),
        most: mib(256),
        limit: mib(256),
        reservation: mib(64),
        driver: Driver::Follows,
        inflates: false,
        can_page: true,
        swap: Pages::ZERO,
        waited: Duration::ZERO,
        starved: false,
        leeway: Pages::ZERO,
    }
}

/// A VM that waits for nothing and has `granted` of its `reservation`.
fn reserving(reservation: Pages, granted: Pages) -> Party {
    Party { reservation, granted, certain: granted, wanted: Pages::ZERO, ..waiting() }
}

fn grants(free: Pages, parties: &[Party]) -> Grants {
    Grants::new(free, thresholds(), &PoolTree::default(), parties.to_vec())
}

fn allowance(party: Party, free: Pages) -> Pages {
    grants(free, &[party]).allowance(0)
}

fn pool(name: &str, parent: Option<&str>, reservation: Pages, limit: Option<Pages>) -> NamedPool {
    let pool = Pool { shares: 1000, reservation, limit, expandable: true };
    NamedPool { name: name.into(), parent: parent.map(Into::into), pool }
}

#[test]
fn an_entitled_vm_takes_from_the_reserve_and_another_does_not() {
    assert_eq!(allowance(waiting(), mib(68)), mib(20));
    let beyond = Party { entitlement: mib(90), ..waiting() };
    assert_eq!(allowance(beyond, mib(60)), Pages(0));
    assert_eq!(allowance(beyond, mib(130)), mib(30));
    // A loan counts as an entitlement, unless the balloon does not follow.
    let lent = Party { entitlement: mib(90), lent: mib(30), ..waiting() };
    assert_eq!(allowance(lent, mib(68)), mib(20));
    assert_eq!(allowance(Party { driver: Driver::Stuck, ..lent }, mib(60)), Pages(0));
}

/// A VM above its entitlement that has waited for a period, cannot page and has a balloon to
/// inflate.
fn inflating() -> Party {
    Party { entitlement: mib(90), inflates: true, can_page: false, waited: LONG_WAIT, ..waiting() }
}

#[test]
fn a_balloon_that_inflates_gets_some_leeway_above_the_low_threshold() {
    assert_eq!(allowance(inflating(), mib(60)), Pages::CHUNK);
    assert_eq!(allowance(inflating(), mib(16)), Pages(0));
    assert_eq!(grants(mib(60), &[inflating(), reserving(mib(64), mib(20))]).allowance(0), Pages(0));
    assert_eq!(allowance(Party { inflates: false, ..inflating() }, mib(60)), Pages(0));
    let mut grants = grants(mib(90), &[inflating()]);
    for _ in 0..20 {
        grants.give(0, grants.allowance(0));
    }
    assert_eq!(grants.party(0).granted, mib(100) + LEEWAY);
    grants.take_back(0, mib(4));
    assert_eq!(grants.allowance(0), Pages::CHUNK);
}

#[test]
fn some_memory_circulates_while_a_balloon_inflates() {
    for party in [Party { can_page: true, ..inflating() }, Party { waited: Duration::ZERO, ..inflating() }] {
        let mut grants = grants(mib(90), &[party]);
        for _ in 0..3 {
            grants.give(0, grants.allowance(0));
        }
        assert_eq!((grants.party(0).leeway, grants.allowance(0)), (CIRCULATING, Pages::ZERO));
        grants.take_back(0, Pages(500));
        assert_eq!(grants.allowance(0), Pages(500), "what the balloon took serves the next fault");
    }
}

#[test]
fn while_a_vm_waits_for_what_it_is_entitled_to_leeway_is_small() {
    let owed = Party { wanted: mib(500), usable: mib(500), limit: mib(110), ..waiting() };
    let mut grants = grants(mib(90), &[inflating(), owed]);
    for _ in 0..20 {
        grants.give(0, grants.allowance(0));
    }
    assert_eq!(grants.party(0).granted, mib(100) + CIRCULATING);
}

#[test]
fn the_last_of_what_is_free_is_for_vms_that_have_the_least_of_what_they_are_entitled_to() {
    let has = |granted| Party {
        granted: mib(granted),
        certain: mib(granted),
        wanted: mib(500),
        usable: mib(500),
        reservation: Pages(0),
        ..waiting()
    };
    // Low at 16 MiB, reserve at 48: a VM that has three quarters leaves three quarters between.
    for (granted, free, gets) in [(0, 17, 1), (0, 16, 0), (60, 33, 1), (60, 32, 0), (90, 41, 1), (90, 40, 0)]
    {
        assert_eq!(allowance(has(granted), mib(free)), mib(gets), "{granted} of 120 with {free} free");
    }
}

#[test]
fn a_vm_whose_shares_are_worth_more_than_its_size_may_have_the_last_of_what_is_free() {
    let all =
        Party { granted: mib(60), entitlement: mib(256), limit: mib(256), wanted: mib(196), ..waiting() };
    let all = Party { certain: all.granted, usable: mib(196), reservation: Pages::ZERO, ..all };
    let raised = grants(mib(60), &[Party { worth: mib(6000), ..all }]);
    assert!(raised.allowance(0) > mib(43) && raised.leaves(0) < mib(17), "{:?}", raised.leaves(0));
    // Others leave it to VMs that have less of what they are entitled to.
    let other = grants(mib(60), &[Party { worth: mib(256), ..all }]);
    assert_eq!((other.allowance(0), other.leaves(0)), (mib(36) + Pages(128), mib(24) - Pages(128)));
}

#[test]
fn below_the_low_threshold_a_vm_gets_no_more_than_its_reservation_however_long_it_waits() {
    let starved = Party {
        granted: mib(64),
        certain: mib(64),
        entitlement: Pages(u64::MAX),
        waited: LONG_WAIT * 9,
        starved: true,
        can_page: false,
        ..waiting()
    };
    assert_eq!(allowance(starved, mib(16)), Pages(0));
    assert_eq!(allowance(starved, mib(17)), mib(1));
}

#[test]
fn those_that_starve_are_served_in_order_of_shares_and_the_others_by_need() {
    let tree = PoolTree::new(&[pool("a", None, Pages(0), None)]).unwrap();
    let in_pool = tree.find("a").unwrap();
    let starved = Party { starved: true, ..waiting() };
    let parties = [
        Party { entitlement: mib(90), wanted: Pages(1), ..waiting() },
        Party { wanted: mib(60), ..waiting() },
        Party { wanted: mib(2), ..waiting() },
        starved,
        Party { shares: 2000, ..starved },
        // Alone in a pool, any number of shares is worth the pool's 1000.
        Party { shares: 3, pool: in_pool, granted: mib(60), certain: mib(60), ..starved },
        Party { wanted: Pages(0), ..starved },
    ];
    let grants = Grants::new(mib(900), thresholds(), &tree, parties.to_vec());
    assert_eq!(grants.order(), [4, 5, 3, 2, 1, 0]);
}

#[test]
fn a_reservation_is_served_whatever_the_state() {
    let reserved = Party { granted: mib(60), certain: mib(60), entitlement: mib(60), ..waiting() };
    assert_eq!(allowance(reserved, mib(10)), mib(4));
}

#[test]
fn a_single_page_comes_with_the_rest_of_a_chunk() {
    let one = Party { wanted: Pages(1), ..waiting() };
    assert_eq!(allowance(one, mib(60)), Pages::CHUNK);
    let nothing = Party { granted: Pages(0), certain: Pages(0), reservation: Pages(0), ..one };
    assert_eq!(allowance(nothing, mib(16) + Pages(3)), Pages(3));
    assert_eq!(allowance(Party { wanted: Pages(0), ..waiting() }, mib(600)), Pages(0));
}

#[test]
fn a_pools_reserve_is_there_for_its_own_vms_only() {
    let pools = [pool("prod", None, mib(200), None), pool("web", Some("prod"), mib(50), None)];
    let tree = PoolTree::new(&pools).unwrap();
    let web = tree.find("web").unwrap();
    let inside = Party { pool: web, entitlement: mib(200), ..waiting() };
    let outside = Party { wanted: mib(300), usable: mib(300), limit: mib(512), most: mib(512), ..waiting() };
    let mut grants = Grants::new(mib(140), thresholds(), &tree, vec![inside, outside]);
    // Half of the pool's 200 is not granted yet.
    assert_eq!((grants.withheld(), grants.open(0), grants.open(1)), (mib(100), mib(140), mib(40)));
    grants.give(0, mib(50));
    assert_eq!((grants.withheld(), grants.open(0), grants.open(1)), (mib(50), mib(90), mib(40)));
}

#[test]
fn a_queued_vm_is_promised_what_it_needs_to_start() {
    let queued = Party {
        stage: Stage::Queued { overhead: mib(10) },
        granted: Pages(0),
        certain: Pages(0),
        ..reserving(mib(64), Pages(0))
    };
    let mut grants = grants(mib(100), &[queued, waiting()]);
    assert_eq!((grants.open(0), grants.open(1), grants.allowance(0)), (mib(100), mib(26), Pages(0)));
    grants.start(0, mib(10), mib(64));
    assert_eq!((grants.free(), grants.withheld(), grants.open(1)), (mib(26), Pages(0), mib(26)));
}

fn any_party() -> impl Strategy<Value = Party> {
    let bounds = (0..4usize, 0..4u8, 0..1000u64, 0..2u64, 0..1000u64, 0..1000u64);
    let more = (0..1000u64, 0..1000u64, 0..1000u64, 0..1000u64, 0..3u8, any::<[bool; 3]>(), 0..6000u64);
    (bounds, more).prop_map(|(bounds, more)| {
        let (pool, stage, granted, part, wanted, usable) = bounds;
        let (entitlement, most, limit, reservation, driver, [inflates, can_page, waited], leeway) = more;
        let queued = stage == 0;
        Party {
            pool: tree().ids().nth(pool).unwrap(),
            shares: 1000,
            stage: match stage {
                0 => Stage::Queued { overhead: Pages(10) },
                1 => Stage::Leaving,
                _ => Stage::Running,
            },
            granted: if queued { Pages(0) } else { Pages(granted) },
            certain: if queued { Pages(0) } else { Pages(granted.saturating_sub(part)) },
            wanted: Pages(wanted),
            usable: Pages(usable),
            entitlement: Pages(entitlement),
            lent: Pages::ZERO,
            worth: Pages(entitlement.saturating_add(usable)),
            most: Pages(most),
            limit: Pages(limit),
            reservation: Pages(reservation.min(limit)),
            driver: [Driver::Absent, Driver::Follows, Driver::Stuck][usize::from(driver)],
            inflates,
            can_page,
            swap: Pages::ZERO,
            waited: if waited { LONG_WAIT } else { Duration::ZERO },
            starved: false,
            leeway: Pages(leeway),
        }
    })
}

/// A pool in a pool, and one beside them.
fn tree() -> PoolTree {
    PoolTree::new(&[
        pool("a", None, Pages(900), Some(Pages(2500))),
        pool("b", Some("a"), Pages(500), None),
        pool("c", None, Pages(700), None),
    ])
    .unwrap()
}

/// The promises to all but `asking`, added up anew by the definition.
fn promised(parties: &[Party], asking: Option<usize>) -> Pages {
    fn of(
        tree: &PoolTree,
        parties: &[Party],
        asking: Option<usize>,
        pool: PoolId,
    ) -> (Pages, Pages, Pages, bool) {
        let (mut open, mut certain, mut limit, mut asks) = (Pages(0), Pages(0), Pages(0), false);
        for (i, party) in parties.iter().enumerate().filter(|(_, party)| party.pool == pool) {
            asks |= Some(i) == asking;
            open += if Some(i) == asking { Pages(0) } else { party.promise().open };
            certain += party.certain;
            limit += party.limit;
        }
        for child in tree.ids().filter(|id| tree.parent(*id) == Some(pool)) {
            let below = of(tree, parties, asking, child);
            (open, certain, limit, asks) =
                (open + below.0, certain + below.1, limit + below.2, asks | below.3);
        }
        let reserved = tree.get(pool).map_or(Pages(0), |named| named.pool.reservation).min(limit);
        (if asks { open } else { open.max(reserved.saturating_sub(certain)) }, certain, limit, asks)
    }
    of(&tree(), parties, asking, PoolId::ROOT).0
}

#[test]
fn what_is_reserved_and_unused_is_lent_as_far_as_it_can_be_swapped_out_again() {
    let lender = reserving(mib(512), mib(8));
    let borrower = |swap| Party {
        granted: mib(400),
        certain: mib(400),
        wanted: mib(600),
        usable: mib(600),
        entitlement: mib(400),
        most: mib(1024),
        limit: mib(1024),
        reservation: Pages(0),
        swap,
        ..waiting()
    };
    // 504 MiB are promised, and 100 stay free.
    let given = |swap| grants(mib(566), &[borrower(swap), lender]).allowance(0);
    assert_eq!((given(Pages(0)), given(mib(50)), given(mib(1024))), (Pages(0), mib(12), mib(466)));
    let mut grants = grants(mib(566), &[borrower(mib(1024)), lender, borrower(Pages(0))]);
    grants.give(0, mib(466));
    // Memory that is not lent yet is there for VMs that need no loan; the lender may take all free
    // memory.
    assert_eq!((grants.withheld(), grants.open(2), grants.open(1)), (mib(38), mib(62), mib(100)));
}

#[test]
fn what_a_vm_is_entitled_to_is_no_loan_since_it_is_not_paged_out_for_others() {
    let owed =
        Party { swap: mib(1024), entitlement: mib(500), wanted: mib(400), usable: mib(400), ..waiting() };
    let below = Party { limit: mib(1024), most: mib(1024), ..owed };
    assert_eq!(grants(mib(200), &[below, reserving(mib(200), Pages(0))]).allowance(0), Pages(0));
}

#[test]
fn what_a_pool_has_reserved_for_its_vms_is_not_taken_back_from_them_for_others() {
    let tree = PoolTree::new(&[pool("prod", None, mib(300), None)]).unwrap();
    let in_pool = Party { pool: tree.find("prod").unwrap(), wanted: Pages(0), swap: mib(512), ..waiting() };
    let rich = Party { granted: mib(340), certain: mib(340), entitlement: mib(100), ..in_pool };
    let parties = vec![rich, in_pool, reserving(mib(200), Pages(0))];
    // All but 140 of the 240 MiB above its entitlement are the pool's.
    let grants = Grants::new(mib(200), thresholds(), &tree, parties);
    assert_eq!(grants.withheld(), mib(60));
}

proptest! {
    #[test]
    fn what_is_promised_is_free_or_comes_back_at_once(
        parties in prop::collection::vec((any_party(), 0..1000u64), 1..8), free in 0..9000u64, gives in 0..20usize,
    ) {
        let swap = |(party, swap): (Party, u64)| Party { swap: Pages(swap), ..party };
        let parties: Vec<Party> = parties.into_iter().map(swap).collect();
        let mut grants = Grants::new(Pages(free), thresholds(), &tree(), parties.clone());
        for turn in 0..gives {
            let i = turn % parties.len();
            let uncovered = grants.withheld().saturating_sub(grants.free());
            let given = grants.allowance(i);
            prop_assert!(given <= grants.free());
            grants.give(i, given);
            let short = grants.withheld().saturating_sub(grants.free());
            prop_assert!(short <= uncovered, "{short:?}, {uncovered:?} before");
        }
    }

    #[test]
    fn nobody_eats_anothers_reservation_or_exceeds_a_limit(
        parties in prop::collection::vec(any_party(), 1..8), free in 0..9000u64, min_free in 0..1000u64, gives in 0..20usize,
    ) {
        let thresholds = Thresholds::of_min_free(Bytes(min_free * 4096));
        let mut grants = Grants::new(Pages(free), thresholds, &tree(), parties.clone());
        for turn in 0..gives {
            let i = turn % parties.len();
            let before = *grants.party(i);
            let given = grants.allowance(i);
            prop_assert!(given.0 <= before.wanted.0.max(512) && given <= before.usable);
            prop_assert!(given <= grants.free().saturating_sub(promised(&grants.parties, Some(i))));
            let within = before.granted + given <= before.limit;
            prop_assert!(given.0 == 0 || within || before.granted > before.limit && before.leeway < LEEWAY);
            // Below the low threshold only reservations are served.
            let reserved = before.granted < before.reservation || before.granted < before.entitlement;
            prop_assert!(given.0 == 0 || reserved || given + thresholds.low <= grants.free());
            grants.give(i, given);
            prop_assert_eq!(grants.owed, grants.parties.iter().filter(|party| party.is_owed()).count());
            // The sums that are kept from grant to grant equal sums made anew.
            prop_assert_eq!(grants.withheld(), promised(&grants.parties, None));
            for other in 0..parties.len() {
                let open = grants.free().saturating_sub(promised(&grants.parties, Some(other)));
                prop_assert_eq!(grants.open(other), open);
                let withheld: Pages = grants.withheld_for(other).iter().map(|(_, open)| *open).sum();
                prop_assert_eq!(withheld, promised(&grants.parties, Some(other)));
            }
        }
    }
}

#[test]
fn a_lender_comes_before_its_borrower() {
    let borrower = Party { entitlement: mib(90), lent: mib(30), wanted: mib(1), starved: true, ..waiting() };
    let beyond = Party { entitlement: mib(90), wanted: Pages(1), ..waiting() };
    let round = grants(mib(200), &[beyond, borrower, waiting()]);
    assert_eq!(round.order(), [2, 1, 0]);
}
