use proptest::prelude::*;

use super::*;

fn account(grant: u64, overhead: u64) -> Account {
    Account { grant: Pages(grant), overhead: Pages(overhead), pledged: Pages::ZERO }
}

#[test]
fn a_return_above_the_grant_changes_nothing() {
    let mut ledger = Ledger::new(Pages(1000));
    ledger.open(RunId(1), account(100, 10)).unwrap();
    assert!(matches!(ledger.credit(RunId(1), Pages(101)), Err(LedgerError::Breach { .. })));
    assert_eq!((ledger.account(RunId(1)), ledger.free()), (account(100, 10), Pages(890)));
}

#[test]
fn what_adopted_vms_hold_beyond_the_budget_raises_it_for_a_while() {
    let mut ledger = Ledger::new(Pages(100));
    ledger.adopt(RunId(1), account(150, 10)).unwrap();
    assert_eq!((ledger.budget(), ledger.free()), (Pages(160), Pages(0)));
    ledger.credit(RunId(1), Pages(90)).unwrap();
    assert_eq!((ledger.budget(), ledger.free()), (Pages(100), Pages(30)));
}

#[test]
fn what_others_have_taken_is_not_promised_again() {
    let mut ledger = Ledger::new(Pages(1000));
    ledger.open(RunId(1), account(500, 10)).unwrap();
    ledger.sustain(Pages(400));
    assert_eq!((ledger.free(), ledger.taken(), ledger.budget()), (Pages(0), Pages(600), Pages(510)));
    ledger.credit(RunId(1), Pages(200)).unwrap();
    assert_eq!((ledger.free(), ledger.budget()), (Pages(90), Pages(400)));
    ledger.sustain(Pages(5000));
    assert_eq!((ledger.free(), ledger.taken()), (Pages(690), Pages(0)));
}

#[test]
fn frames_are_paid_by_who_offers_them_and_free_when_they_are_gone() {
    let mut ledger = Ledger::new(Pages(1000));
    ledger.open(RunId(1), account(100, 10)).unwrap();
    ledger.pledge(RunId(1), Pages(40)).unwrap();
    assert!(ledger.credit(RunId(1), Pages(61)).is_err(), "what is pledged is not returned");
    ledger.redeem(RunId(1), Pages(40), Pages(30)).unwrap();
    assert_eq!(
        (ledger.account(RunId(1)).grant, ledger.frames(), ledger.free()),
        (Pages(70), Pages(30), Pages(890))
    );
    assert!(ledger.pledge(RunId(1), Pages(71)).is_err() && ledger.pledge(RunId(2), Pages(1)).is_err());
    assert!(ledger.redeem(RunId(1), Pages(1), Pages(0)).is_err(), "nothing is pledged any more");
    assert!(ledger.unframe(Pages(31)).is_err());
    ledger.unframe(Pages(30)).unwrap();
    assert_eq!((ledger.frames(), ledger.free()), (Pages(0), Pages(920)));
    ledger.adopt_frames(Pages(2000));
    assert_eq!((ledger.budget(), ledger.free()), (Pages(2080), Pages(0)));
}

#[test]
fn a_vm_that_ends_leaves_its_pledge_to_the_frames_that_become_of_it() {
    let mut ledger = Ledger::new(Pages(1000));
    ledger.open(RunId(1), account(100, 10)).unwrap();
    ledger.pledge(RunId(1), Pages(40)).unwrap();
    ledger.close(RunId(1)).unwrap();
    assert_eq!((ledger.frames(), ledger.orphaned(), ledger.free()), (Pages(40), Pages(40), Pages(960)));
    assert!(ledger.unframe(Pages(1)).is_err(), "no frame is known yet");
    ledger.redeem(RunId(1), Pages(40), Pages(30)).unwrap();
    assert_eq!((ledger.frames(), ledger.orphaned(), ledger.free()), (Pages(30), Pages(0), Pages(970)));
    ledger.unframe(Pages(30)).unwrap();
    assert_eq!(ledger.free(), Pages(1000));
}

proptest! {
    #[test]
    fn no_sequence_of_changes_breaks_the_sum(
        budget in 0..2000u64,
        changes in prop::collection::vec((0..11u8, 0..4u64, prop_oneof![0..800u64, Just(u64::MAX)]), 0..80),
    ) {
        let mut ledger = Ledger::new(Pages(budget));
        for (change, run, pages) in changes {
            let (run, pages) = (RunId(run), Pages(pages));
            let before = (ledger.free(), ledger.frames(), ledger.account(run));
            let refused = match change {
                0 => ledger.open(run, Account { grant: pages, overhead: Pages(7), ..Account::default() }).is_err(),
                1 => ledger.charge(run, pages).is_err(),
                2 => ledger.credit(run, pages).is_err(),
                3 => ledger.adopt(run, Account { grant: pages, overhead: Pages(7), ..Account::default() }).is_err(),
                4 => {
                    ledger.sustain(pages);
                    false
                }
                8 => {
                    ledger.configure(pages.min(Pages(2000))); // The machine bounds it.
                    false
                }
                5 => ledger.pledge(run, pages).is_err(),
                10 => ledger.redeem(run, pages, Pages(pages.0 / 2)).is_err(),
                6 => ledger.unframe(pages).is_err(),
                7 => ledger.correct(run, Account { grant: pages, overhead: Pages(9), ..Account::default() }).is_err(),
                _ => ledger.close(run).is_err(),
            };
            prop_assert!(ledger.adds_up());
            if refused {
                prop_assert_eq!(before, (ledger.free(), ledger.frames(), ledger.account(run)));
            }
        }
    }
}
