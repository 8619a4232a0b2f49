use super::*;

#[test]
fn many_pages_are_protected_with_the_whole_chunk_unless_some_stay_protected() {
    let mut table = Table::all(PageState::Private);
    let few: PageSet = [3, 5].into_iter().collect();
    let many: PageSet = (0..SLOTS).step_by(2).collect();
    assert_eq!((table.unguarded(&few), table.unguarded(&many)), (few, PageSet::FULL));
    table.set(3, PageState::Shared(FrameNo(9)), Step::Share);
    assert_eq!(table.unguarded(&few), PageSet::one(5));
    assert_eq!(table.unguarded(&many), many, "or the frame could be written afterwards");
}

#[test]
fn as_many_absent_pages_follow_as_have_come_before() {
    let mut table = Table::all(PageState::Absent);
    assert_eq!(table.following(0), 0);
    table.set(0, PageState::Private, Step::Provide);
    assert_eq!(table.following(1), 0, "it has been there for long");
    table.recent.insert(0);
    assert_eq!(table.following(1), 1);
    assert_eq!(table.following(2), 0, "the guest did not come from the page before");
    table.set_all(&PageSet::span(1, 99), PageState::Private, Step::Provide);
    table.recent = PageSet::span(0, 100);
    assert_eq!(table.following(100), MAX_RUN - 1);
    table.set(104, PageState::Ballooned, Step::Balloon);
    assert_eq!(table.following(100), 3, "the guest has promised not to touch it");
    assert_eq!(table.following(99), 0, "it is present");
    table.set_all(&PageSet::span(105, SLOTS - 106), PageState::Private, Step::Provide);
    table.recent = PageSet::FULL;
    assert_eq!(table.following(SLOTS - 1), 0, "the chunk ends");
}
