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
