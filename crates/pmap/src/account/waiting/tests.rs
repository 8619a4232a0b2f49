use proptest::prelude::*;

use super::*;

fn place(chunk: usize, slot: u16) -> Place {
    Place { chunk: ChunkNo(chunk), slot }
}

#[test]
fn one_page_may_pass_a_chunk_that_does_not_fit() {
    let mut waiting = Waiting::default();
    waiting.push(place(0, 7), Need::Chunk);
    waiting.push(place(1, 8), Need::Page);
    assert_eq!(waiting.need(), Pages(513));
    let turn = waiting.next(Pages(100)).unwrap();
    assert_eq!((turn.chunk, turn.reserved), (ChunkNo(1), Pages(1)));
    assert_eq!(waiting.next(Pages(99)), None);
    assert_eq!(waiting.need(), Pages(512));
}

#[test]
fn after_an_answer_a_chunk_makes_do_with_pages() {
    let mut waiting = Waiting::default();
    for slot in 0..3 {
        waiting.push(place(0, slot), Need::Chunk);
    }
    assert_eq!((waiting.need(), waiting.next(Pages(511))), (Pages(512), None));
    waiting.accept_pages();
    assert_eq!(waiting.need(), Pages(3));
    assert_eq!(waiting.next(Pages::ZERO), None);
    assert_eq!(waiting.next(Pages(2)).unwrap().pages.count(), Pages(2));
    assert_eq!(waiting.need(), Pages(1));
    assert_eq!(waiting.next(Pages(512)).unwrap().reserved, Pages(512), "a whole chunk after all");
    assert!(waiting.order.is_empty() && waiting.entries.is_empty());
    assert_eq!(waiting.need(), Pages::ZERO);
}

proptest! {
    #[test]
    fn nobody_waits_who_could_be_served(
        steps in prop::collection::vec((0usize..4, 0u16..6, any::<bool>(), 0u64..600, 0u8..9), 1..60)
    ) {
        let mut waiting = Waiting::default();
        for (chunk, slot, whole, slack, step) in steps {
            match step {
                0..4 => waiting.push(place(chunk, slot), if whole { Need::Chunk } else { Need::Page }),
                4 => waiting.accept_pages(),
                5 => waiting.served(ChunkNo(chunk), || PageSet::span(0, slot)),
                _ => {
                    let turn = waiting.next(Pages(slack));
                    let paid = |turn: &Reservation| turn.reserved <= Pages(slack) && !turn.pages.is_empty();
                    prop_assert!(turn.iter().all(paid));
                    let served = |entry: &Entry| {
                        slack >= 512 || slack > 0 && (entry.accepts_pages || entry.need == Need::Page)
                    };
                    prop_assert!(turn.is_some() || !waiting.entries.values().any(served));
                }
            }
            prop_assert_eq!(waiting.need(), waiting.entries.values().map(Entry::need).sum());
            prop_assert_eq!(waiting.order.len(), waiting.entries.len());
            let faults: Pages = waiting.entries.values().map(|entry| entry.pages.count()).sum();
            prop_assert_eq!(waiting.faults(), faults.0);
        }
    }
}

#[test]
fn first_come_first_served() {
    let mut waiting = Waiting::default();
    for chunk in [3, 1, 2] {
        waiting.push(place(chunk, 0), Need::Page);
        waiting.push(place(chunk, 0), Need::Page);
    }
    assert_eq!(waiting.need(), Pages(3), "a page is waited for once");
    let order: Vec<_> = std::iter::from_fn(|| waiting.next(Pages(1))).map(|turn| turn.chunk.0).collect();
    assert_eq!(order, [3, 1, 2]);
}
