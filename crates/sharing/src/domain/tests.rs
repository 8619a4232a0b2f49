use plimsoll_units::FrameNo;

use super::*;
use crate::Offered;

mod audit;
mod hostile;
mod model;
mod offer;
mod restart;
mod upkeep;

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

/// A page full of a word.
fn page(word: u64) -> Page {
    let mut page = [0; 4096];
    page.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_ne_bytes()));
    page
}

/// The key that tests make digests with, whatever the domain's is.
const KEY: DigestKey = DigestKey::new([7; DigestKey::LEN]);

fn digest(word: u64) -> PageDigest {
    KEY.digest(&page(word))
}

/// A digest, or a number in its place.
trait AsDigest {
    fn digest(self) -> PageDigest;
}

impl AsDigest for PageDigest {
    fn digest(self) -> PageDigest {
        self
    }
}

impl AsDigest for u64 {
    fn digest(self) -> PageDigest {
        PageDigest(self.into())
    }
}

/// A domain with three members of 1000 pages.
fn domain() -> Domain {
    domain_of(keyed)
}

fn keyed(_: &DigestKey, page: &Page) -> PageDigest {
    KEY.digest(page)
}

/// The same with digests of our choice, so that unequal pages can have the same.
fn domain_of(digest: Digest) -> Domain {
    let limit = Pages(1000);
    let mut domain = Domain::with_pool(Pool::new(limit).unwrap(), limit, digest).unwrap();
    domain.secret = Secret::fixed();
    [A, B, C].into_iter().for_each(|member| domain.join(member, Pages(1000)).unwrap());
    domain
}

impl Domain {
    /// Looks up one page.
    fn ask(&mut self, member: MemberId, number: u32, digest: impl AsDigest) -> Found {
        self.look_up(member, &[(PageNo(number), digest.digest())])[0]
    }

    /// Offers one page.
    fn bring(&mut self, member: MemberId, number: u32, digest: impl AsDigest, content: &Page) -> Offered {
        self.offer(member, &[(PageNo(number), digest.digest())], |_, copy| *copy = *content)
    }

    /// What one member has as a hint and another one has, too: shared, as pages `number` of both.
    fn share(&mut self, first: MemberId, second: MemberId, number: u32, word: u64) -> FrameNo {
        assert_eq!(self.ask(first, number, digest(word)), Found::New);
        assert_eq!(self.ask(second, number, digest(word)), Found::Wanted);
        self.bring(second, number, digest(word), &page(word)).frames[0].unwrap()
    }

    fn end(&mut self, member: MemberId, number: u32, frame: FrameNo) -> GivenBack {
        self.give_back(member, &[(PageNo(number), frame)], ReturnReason::Unused)
    }

    fn content(&self, frame: FrameNo) -> Page {
        let mut content = [0; 4096];
        self.pool.read(frame, &mut content).unwrap();
        content
    }
}

#[test]
fn two_pages_become_one_frame_and_none() {
    let mut domain = domain();
    assert_eq!(domain.ask(A, 3, digest(7)), Found::New);
    assert_eq!(domain.ask(A, 3, digest(7)), Found::New, "unchanged memory changes nothing");
    assert_eq!(domain.ask(B, 9, digest(7)), Found::Wanted);
    let offered = domain.bring(B, 9, digest(7), &page(7));
    let frame = offered.frames[0].unwrap();
    assert_eq!((offered.created, offered.notices), (Pages(1), vec![(A, PageNo(3), frame)]));
    assert_eq!(domain.content(frame), page(7));
    assert_eq!(domain.ask(B, 8, digest(7)), Found::Frame(frame));
    let stats = domain.stats();
    assert_eq!(
        (stats.frames, stats.references, stats.saved, stats.hints),
        (Pages(1), Pages(3), Pages(2), Pages(0))
    );
    assert_eq!(
        (domain.member(B).unwrap().references, domain.member(B).unwrap().charge),
        (Pages(2), Pages(1))
    );
    domain.audit();
    domain.leave(B);
    assert_eq!(domain.stats().references, Pages(1));
    assert_eq!(domain.end(A, 3, frame), GivenBack { freed: Pages(1), accepted: 1, ignored: 0 });
    domain.audit();
    assert_eq!((domain.stats().frames, domain.pool.resident().unwrap()), (Pages(0), Pages(0)));
}

#[test]
fn a_page_with_new_content_is_no_hint_for_the_old() {
    let mut domain = domain();
    domain.ask(A, 1, digest(1));
    domain.ask(A, 1, digest(2));
    assert_eq!(domain.ask(B, 1, digest(1)), Found::New);
    assert_eq!(domain.ask(C, 1, digest(2)), Found::Wanted);
    // What is wanted elsewhere is no hint either, and what is shared is left alone.
    domain.ask(B, 1, digest(2));
    assert_eq!(domain.stats().hints, Pages(1));
    domain.bring(B, 1, digest(2), &page(2));
    assert_eq!(domain.ask(B, 1, digest(3)), Found::Busy);
    domain.audit();
}

#[test]
fn an_offer_is_taken_only_where_another_page_is_alike() {
    let mut domain = domain();
    // No page has it; then only the page itself; then its hint is of a VM that is gone.
    assert_eq!(domain.bring(A, 1, digest(1), &page(1)).frames, [None]);
    domain.ask(A, 1, digest(1));
    assert_eq!(domain.bring(A, 1, digest(1), &page(1)).frames, [None]);
    domain.leave(A);
    assert_eq!(domain.bring(B, 1, digest(1), &page(1)).frames, [None]);
    assert_eq!(domain.stats().frames, Pages(0));
    domain.audit();
    // One VM with two alike shares with itself.
    domain.ask(B, 1, digest(5));
    assert_eq!(domain.ask(B, 2, digest(5)), Found::Wanted);
    let offered = domain.bring(B, 2, digest(5), &page(5));
    assert_eq!(offered.notices, [(B, PageNo(1), offered.frames[0].unwrap())]);
    domain.audit();
}

#[test]
fn nothing_new_comes_into_a_closed_domain() {
    let mut domain = domain();
    let frame = domain.share(A, B, 1, 1);
    domain.ask(A, 2, digest(2));
    domain.close();
    assert_eq!(domain.ask(C, 1, digest(1)), Found::Frame(frame), "what is there is shared");
    assert_eq!(domain.bring(C, 2, digest(1), &page(1)).frames, [Some(frame)]);
    assert_eq!((domain.ask(C, 3, digest(3)), domain.ask(C, 4, digest(2))), (Found::New, Found::Busy));
    assert_eq!(domain.bring(C, 4, digest(2), &page(2)).frames, [None]);
    assert_eq!(domain.stats().frames, Pages(1));
    domain.audit();
    domain.open();
    assert_eq!(domain.ask(C, 4, digest(2)), Found::Wanted);
    assert!(domain.bring(C, 4, digest(2), &page(2)).frames[0].is_some());
    domain.audit();
}

#[test]
fn many_pages_of_one_content_and_one_offer_make_one_frame() {
    let mut domain = domain();
    let pages: Vec<(PageNo, PageDigest)> = (0..20).map(|n| (PageNo(n), digest(4))).collect();
    assert_eq!(domain.look_up(A, &pages)[..3], [Found::New, Found::Wanted, Found::Wanted]);
    let offered = domain.offer(A, &pages, |_, copy| *copy = page(4));
    assert_eq!((offered.created, offered.notices.len()), (Pages(1), 1));
    // Its hint has been told by notice, and its own offer is not taken twice.
    assert_eq!(offered.frames.iter().flatten().count(), 19);
    assert_eq!(domain.stats().references, Pages(20));
    domain.audit();
}

#[test]
fn answers_in_a_batch_take_the_ones_before_into_account() {
    let mut domain = domain();
    domain.look_up(A, &[(PageNo(0), digest(1)), (PageNo(1), digest(2))]);
    // Page 0 changes, so the third page finds no hint of its old content, and the last one finds
    // the third.
    let pages = [(0, 3), (1, 2), (2, 1), (3, 1)].map(|(page, word)| (PageNo(page), digest(word)));
    assert_eq!(domain.look_up(A, &pages), [Found::New, Found::New, Found::New, Found::Wanted]);
    domain.audit();
    // And page by page it is the same.
    let pages = [(0, 1), (2, 9), (0, 9)].map(|(page, word)| (PageNo(page), digest(word)));
    assert_eq!(domain.look_up(A, &pages), [Found::Wanted, Found::New, Found::Wanted]);
    assert_eq!(domain.stats().hints, Pages(2));
    domain.audit();
}

#[test]
fn neighbouring_pages_get_neighbouring_frames_offer_after_offer() {
    let mut domain = domain();
    let pages: Vec<(PageNo, PageDigest)> = (100..228).map(|n| (PageNo(n), digest(n.into()))).collect();
    domain.look_up(A, &pages);
    domain.look_up(B, &pages);
    let mut frames = Vec::new();
    for pages in pages.chunks(64) {
        let offered = domain.offer(B, pages, |i, copy| *copy = page(u64::from(pages[i].0.0)));
        frames.extend(offered.frames.into_iter().map(|frame| frame.unwrap().0));
        // A single page of another VM comes between.
        domain.share(A, C, 500 + pages[0].0.0, 1_000_000 + u64::from(pages[0].0.0));
    }
    assert!(frames.windows(2).filter(|two| two[0] + 1 == two[1]).count() >= 126, "{frames:?}");
}

#[test]
fn the_limit_is_kept_and_what_is_freed_is_used_again() {
    let limit = Pages(3);
    let mut domain = Domain::new(limit).unwrap();
    domain.digest = keyed;
    domain.join(A, Pages(10)).unwrap();
    domain.join(B, Pages(10)).unwrap();
    let frames: Vec<FrameNo> = (0..3).map(|n| domain.share(A, B, n, n.into())).collect();
    domain.ask(A, 5, digest(5));
    let refused = domain.bring(B, 5, digest(5), &page(5));
    assert_eq!((refused.frames, refused.created, refused.notices), (vec![None], Pages(0), vec![]));
    assert!(refused.error.is_none());
    domain.audit();
    domain.end(A, 1, frames[1]);
    domain.end(B, 1, frames[1]);
    assert_eq!(domain.bring(B, 5, digest(5), &page(5)).frames, [Some(frames[1])]);
    domain.audit();
}

#[test]
fn members_are_charged_by_their_references() {
    let mut domain = domain();
    for n in 0..10 {
        let frame = domain.share(A, B, n, n.into());
        assert_eq!(domain.ask(B, 100 + n, digest(n.into())), Found::Frame(frame));
    }
    let charge = |member| domain.member(member).unwrap().charge;
    // 10 frames, 30 references, 10 of A's and 20 of B's: a third, and two thirds.
    assert_eq!((charge(A), charge(B), charge(C)), (Pages(4), Pages(7), Pages(0)));
    assert!(domain.member(MemberId(77)).is_none());
}

#[test]
fn members_join_once_and_the_room_of_who_left_is_used_again() {
    let mut domain = domain();
    assert!(matches!(domain.join(A, Pages(5)), Err(Error::AlreadyMember(A))));
    let rest = Pages(MAX_PAGES.0 - 3000);
    assert!(matches!(domain.join(MemberId(9), rest + Pages(1)), Err(Error::TooLarge { .. })));
    assert!(matches!(domain.join(MemberId(9), Pages(u64::MAX)), Err(Error::TooLarge { .. })));
    domain.ask(B, 999, digest(1));
    domain.leave(B);
    domain.leave(B);
    domain.join(B, Pages(1000)).unwrap();
    assert_eq!(domain.members().collect::<Vec<_>>(), [A, B, C]);
    assert_eq!(domain.member(B).unwrap().hints, Pages(0));
    domain.join(MemberId(9), Pages(0)).unwrap();
    domain.ask(MemberId(9), 0, 1);
    domain.leave(MemberId(9));
    while domain.tidy().more {}
    domain.audit();
}

#[test]
fn a_large_member_leaves_in_steps_that_nobody_waits_for() {
    let mut domain = Domain::new(Pages(10)).unwrap();
    let size = 200_000;
    domain.join(A, Pages(size.into())).unwrap();
    domain.join(B, Pages(size.into())).unwrap();
    let pages: Vec<(PageNo, PageDigest)> = (0..size).map(|n| (PageNo(n), PageDigest(n.into()))).collect();
    domain.look_up(A, &pages);
    let full = domain.stats();
    assert!(domain.leave(A).more);
    assert!(domain.stats().hints > Pages(0));
    // What it had is worth nothing from the first moment.
    assert_eq!(domain.ask(B, 0, pages[199_999].1), Found::New);
    let mut steps = 1;
    while domain.tidy().more {
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    domain.audit();
    assert_eq!(domain.stats().hints, Pages(1));
    assert!(domain.stats().index.0 * 2 < full.index.0);
}

#[test]
fn holes_that_a_member_fills_by_reading_are_noticed_and_punched() {
    let mut domain = domain();
    let frame = domain.share(A, B, 1, 1);
    assert_eq!(domain.excess().unwrap(), Pages(0));
    // Reading a hole in a mapping gives it memory; here the file's owner writes it, to the same
    // effect.
    domain.pool.write(FrameNo(77), &[page(0)]).unwrap();
    domain.pool.write(FrameNo(900), &[page(0)]).unwrap();
    assert_eq!(domain.excess().unwrap(), Pages(2));
    domain.scrub();
    while domain.tidy().more {}
    assert_eq!((domain.excess().unwrap(), domain.stats().frames), (Pages(0), Pages(1)));
    assert_eq!(domain.content(frame), page(1));
    domain.audit();
}
