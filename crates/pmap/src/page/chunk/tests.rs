use super::*;

#[test]
fn a_small_chunk_that_is_all_absent_or_all_ballooned_is_empty() {
    let mut chunk = Chunk::default();
    chunk.small_table().unwrap().set(5, PageState::Ballooned, Step::Balloon);
    chunk.empty_if_uniform();
    assert_eq!(chunk.kind(), Kind::Small, "which pages are ballooned must be remembered");
    assert_eq!(chunk.tally().ballooned, Pages(1));
    chunk.small_table().unwrap().set_all(&PageSet::FULL, PageState::Ballooned, Step::Balloon);
    chunk.empty_if_uniform();
    assert_eq!(chunk.tally(), Tally { ballooned: Pages::CHUNK, ..Tally::default() });
    chunk.small_table().unwrap().set_all(&PageSet::FULL, PageState::Absent, Step::Deflate);
    chunk.empty_if_uniform();
    assert_eq!(chunk.tally(), Tally::default());
}

#[test]
fn io_on_the_same_pages_is_counted() {
    let mut chunk = Chunk::default();
    chunk.start_io(3, 4);
    chunk.start_io(3, 4);
    chunk.start_io(6, 2);
    chunk.end_io(3, 4);
    assert_eq!(chunk.busy(), PageSet::span(3, 5));
    chunk.end_io(3, 4);
    assert_eq!(chunk.busy(), PageSet::span(6, 2));
}
