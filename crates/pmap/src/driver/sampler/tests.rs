use super::*;

#[test]
fn a_place_is_not_used_again_before_what_is_there_was_brought_back() {
    let watched = [Spare::of_chunk(0), Spare::of_chunk(2), Spare::of_page(1)].map(|spare| Watched {
        chunk: ChunkNo(7),
        slot: None,
        spare,
    });
    let first = |place: fn(usize) -> Spare| free_places(&watched, place).take(2).collect::<Vec<_>>();
    assert_eq!(first(Spare::of_chunk), [Spare::of_chunk(1), Spare::of_chunk(3)]);
    assert_eq!(first(Spare::of_page), [Spare::of_page(0), Spare::of_page(2)]);
    assert_eq!(free_places(&watched, Spare::of_chunk).count(), MAX_SAMPLES - 2);
}
