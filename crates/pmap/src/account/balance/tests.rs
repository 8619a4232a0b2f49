use super::*;

fn place(chunk: usize) -> Place {
    Place { chunk: ChunkNo(chunk), slot: 0 }
}

#[test]
fn what_is_charged_never_exceeds_the_grant() {
    let mut account = Account::new(Pages(600), 8);
    assert_eq!(account.charge_or_wait(place(0), Need::Chunk), Some(Pages(512)));
    assert_eq!(account.charge_or_wait(place(1), Need::Chunk), None);
    assert_eq!(account.wanted(), Pages(424), "88 pages of slack count");
    assert_eq!(account.charge_or_wait(place(2), Need::Page), Some(Pages(1)));
    assert_eq!(account.next_reservation(), None);
    account.add_grant(Pages(425));
    assert_eq!(account.next_reservation().map(|turn| turn.reserved), Some(Pages(512)));
    assert_eq!((account.held(), account.grant()), (Pages(1025), Pages(1025)));
}

#[test]
fn a_grant_is_returned_down_to_what_is_held_and_waited_for() {
    let mut account = Account::new(Pages(1000), 8);
    account.charge_or_wait(place(0), Need::Chunk);
    assert_eq!(account.return_grant(Pages(88)), Pages(400));
    account.charge_or_wait(place(1), Need::Chunk);
    assert_eq!(account.return_grant(Pages::ZERO), Pages::ZERO, "the slack is waited for");
    assert_eq!(account.grant(), Pages(600));
}

#[test]
fn the_source_is_told_of_changes_only_and_by_one_at_a_time() {
    let mut account = Account::new(Pages::ZERO, 8);
    assert_eq!(account.start_report(), None);
    account.wait(place(0), Need::Page);
    assert_eq!(account.start_report(), Some(Pages(1)));
    account.wait(place(1), Need::Page);
    assert_eq!(account.start_report(), None, "a report is under way");
    assert_eq!(account.next_report(), Some(Pages(2)));
    assert_eq!(account.next_report(), None);
    assert_eq!(account.start_report(), None);
}
