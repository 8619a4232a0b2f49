use super::*;

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);

fn page(seed: u64) -> Page {
    let mut page = [0; 4096];
    page.chunks_mut(8).for_each(|word| word.copy_from_slice(&seed.to_ne_bytes()));
    page
}

#[test]
fn two_pages_become_one_frame_and_none() {
    let mut domain = Domain::new(Pages(100)).unwrap();
    domain.join(A, Pages(10)).unwrap();
    domain.join(B, Pages(10)).unwrap();
    let content = page(7);
    let hash = page_hash(&content);
    assert_eq!(domain.look_up(A, &[(PageNo(3), hash)]), [Found::New]);
    assert_eq!(domain.look_up(A, &[(PageNo(3), hash)]), [Found::New]);
    assert_eq!(domain.look_up(B, &[(PageNo(9), hash)]), [Found::Wanted]);
    let offered = domain.offer(B, &[(PageNo(9), hash)], |_, copy| *copy = content);
    let frame = offered.frames[0].unwrap();
    assert_eq!((offered.created, offered.notices), (Pages(1), vec![(A, PageNo(3), frame)]));
    assert_eq!(domain.look_up(B, &[(PageNo(8), hash)]), [Found::Frame(frame)]);
    let stats = domain.stats();
    assert_eq!((stats.frames, stats.references, stats.saved), (Pages(1), Pages(3), Pages(2)));
    assert_eq!(domain.member(B).unwrap().references, Pages(2));
    domain.leave(B);
    let given = domain.give_back(A, &[(PageNo(3), frame)], false);
    assert_eq!(given, GivenBack { freed: Pages(1), accepted: 1, ignored: 0 });
    assert_eq!((domain.stats().frames, domain.pool.resident().unwrap()), (Pages(0), Pages(0)));
}
