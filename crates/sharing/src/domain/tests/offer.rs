//! Offers of several pages: their frames are written together, and must not be decided on together.

use super::*;

impl Domain {
    /// Offers pages, by their numbers and words.
    fn bring_all(&mut self, member: MemberId, pages: &[(u32, u64)]) -> Offered {
        let offer: Vec<(PageNo, PageDigest)> =
            pages.iter().map(|&(n, word)| (PageNo(n), digest(word))).collect();
        self.offer(member, &offer, |i, copy| *copy = page(pages[i].1))
    }
}

#[test]
fn frames_of_an_offer_have_the_content_of_their_pages() {
    let mut domain = domain();
    // More than are written at once, and with gaps.
    let pages: Vec<(u32, u64)> = (0..100).filter(|n| n % 7 > 0).map(|n| (n, n.into())).collect();
    for &(n, word) in &pages {
        domain.ask(A, n, digest(word));
    }
    let offered = domain.bring_all(B, &pages);
    assert!(offered.error.is_none());
    assert_eq!((offered.created, offered.notices.len()), (Pages(pages.len() as u64), pages.len()));
    for (&(n, word), frame) in pages.iter().zip(&offered.frames) {
        let frame = frame.unwrap();
        assert_eq!(domain.content(frame), page(word));
        assert!(offered.notices.contains(&(A, PageNo(n), frame)));
    }
    domain.audit();
}

#[test]
fn content_that_is_there_twice_in_an_offer_is_one_frame() {
    let mut domain = domain();
    domain.ask(A, 0, digest(1));
    let offered = domain.bring_all(B, &[(3, 1), (4, 1)]);
    assert_eq!((offered.created, offered.frames[0]), (Pages(1), offered.frames[1]));
    assert_eq!(domain.frames.count(offered.frames[0].unwrap()), 3);
    domain.audit();
}

#[test]
fn a_page_that_becomes_a_frame_is_no_hint_for_the_next_of_the_offer() {
    let mut domain = domain();
    domain.ask(A, 0, digest(1));
    // It has changed, and that was not asked about.
    domain.ask(B, 0, digest(2));
    let offered = domain.bring_all(B, &[(0, 1), (1, 2)]);
    assert!(offered.frames[0].is_some() && offered.frames[1].is_none());
    domain.audit();
}

#[test]
fn a_page_that_another_of_the_offer_makes_a_frame_is_left_alone() {
    let mut domain = domain();
    domain.ask(A, 0, digest(1));
    domain.ask(B, 0, digest(2));
    // The first one's like is the second, which says that it is something else by now.
    let offered = domain.bring_all(A, &[(1, 1), (0, 2)]);
    assert_eq!(offered.notices, [(A, PageNo(0), offered.frames[0].unwrap())]);
    assert_eq!(offered.frames[1], None);
    domain.audit();
}

#[test]
fn frames_that_cannot_be_written_end_the_offer_wherever_that_shows() {
    // The file has no room for a single frame.
    let mut domain = Domain::with_pool(Pool::new(Pages(0)).unwrap(), Pages(1000), keyed).unwrap();
    [A, B].into_iter().for_each(|member| domain.join(member, Pages(1000)).unwrap());
    domain.ask(A, 0, digest(1));
    let mut read = Vec::new();
    let offered = domain.offer(B, &[(PageNo(0), digest(1)), (PageNo(1), digest(1))], |i, copy| {
        read.push(i);
        *copy = page(1);
    });
    assert!(offered.error.is_some() && offered.frames == [None, None]);
    assert_eq!((read, domain.frames.in_use()), (vec![0], 0));
    while domain.tidy().more {}
    domain.audit();
}
