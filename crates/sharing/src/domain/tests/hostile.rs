use plimsoll_units::FrameNo;

use super::*;

/// A digest that half of all contents share.
fn weak(_: &DigestKey, page: &Page) -> PageDigest {
    PageDigest(u128::from(page[0] % 2))
}

#[test]
fn content_that_does_not_fit_its_hash_makes_no_frame() {
    let mut domain = domain();
    domain.ask(A, 1, digest(1));
    // A lie, or a page that was written to after it was digested.
    let offered = domain.bring(B, 1, digest(1), &page(2));
    assert_eq!((offered.frames, offered.created, offered.notices), (vec![None], Pages(0), vec![]));
    assert_eq!(domain.member(B).unwrap().false_offers, 1);
    assert_eq!(domain.stats().frames, Pages(0));
    // And what was true before stays so.
    domain.share_again(1);
    domain.audit();
}

impl Domain {
    fn share_again(&mut self, word: u64) {
        assert!(self.bring(C, 1, digest(word), &page(word)).frames[0].is_some());
    }
}

#[test]
fn content_is_copied_once_and_only_the_copy_counts() {
    let mut domain = domain();
    domain.ask(A, 1, digest(1));
    let mut reads = 0;
    let offered = domain.offer(B, &[(PageNo(1), digest(1))], |_, copy| {
        reads += 1;
        *copy = page(if reads == 1 { 1 } else { 666 });
    });
    assert_eq!((reads, domain.content(offered.frames[0].unwrap())), (1, page(1)));
}

#[test]
fn what_was_not_taken_cannot_be_given_back() {
    let mut domain = domain();
    let frame = domain.share(A, B, 1, 1);
    let other = domain.share(A, B, 2, 2);
    let ignored = GivenBack { ignored: 1, ..GivenBack::default() };
    // Another's; another page's; another frame's; of a page or a frame that does not exist; of
    // nobody.
    assert_eq!(domain.end(C, 1, frame), ignored);
    assert_eq!(domain.end(B, 3, frame), ignored);
    assert_eq!(domain.end(B, 1, other), ignored);
    assert_eq!(domain.end(B, u32::MAX, frame), ignored);
    assert_eq!(domain.end(B, 1, FrameNo(u32::MAX)), ignored);
    assert_eq!(domain.end(MemberId(50), 1, frame), ignored);
    assert_eq!(domain.frames.count(frame), 2);
    // Twice, and both times in one batch.
    let both = domain.give_back(B, &[(PageNo(1), frame), (PageNo(1), frame)], ReturnReason::Unused);
    assert_eq!((both.accepted, both.ignored, both.freed), (1, 1, Pages(0)));
    assert_eq!(domain.member(B).unwrap().false_returns, 5);
    // A hint is no reference, even if its bits look like one.
    domain.ask(C, 7, digest(70));
    (0..1000).for_each(|n| assert_eq!(domain.end(C, 7, FrameNo(n)), ignored));
    assert_eq!(domain.content(frame), page(1));
    domain.audit();
    domain.dissolve();
}

#[test]
fn pages_that_there_are_not_and_strangers_get_nothing() {
    let mut domain = domain();
    domain.ask(A, 1, digest(1));
    for (member, number) in [(B, 1000), (B, u32::MAX), (MemberId(50), 1)] {
        assert_eq!(domain.ask(member, number, digest(1)), Found::Busy);
        assert_eq!(domain.bring(member, number, digest(1), &page(1)).frames, [None]);
    }
    assert!(domain.look_up(A, &[]).is_empty());
    assert!(domain.offer(A, &[], |_, _| unreachable!()).frames.is_empty());
    domain.audit();
}

#[test]
fn a_flood_of_hashes_takes_no_more_than_a_hint_a_page() {
    let mut domain = domain();
    let mut largest = Bytes(0);
    for round in 0..200 {
        let pages: Vec<(PageNo, PageDigest)> =
            (0..1000).map(|n| (PageNo(n), PageDigest(u128::from(n) << 32 | round))).collect();
        domain.look_up(C, &pages);
        largest = largest.max(domain.stats().index);
    }
    assert_eq!(domain.stats().hints, Pages(1000));
    assert!(largest < Bytes(64 << 10), "{largest}");
    domain.audit();
    domain.dissolve();
}

#[test]
fn a_false_match_is_shared_by_nobody_and_noted() {
    let mut domain = domain_of(weak);
    domain.ask(A, 1, 0);
    assert_eq!(domain.ask(B, 1, 0), Found::Wanted);
    let offered = domain.bring(B, 1, 0, &page(2));
    let frame = offered.frames[0].unwrap();
    assert_eq!(offered.notices, [(A, PageNo(1), frame)]);
    // A has 4 in its page, sees 2 in the frame, and maps nothing.
    let given = domain.give_back(A, &[(PageNo(1), frame)], ReturnReason::Mismatch);
    assert_eq!((given.accepted, given.freed), (1, Pages(0)));
    assert_eq!(domain.member(A).unwrap().false_matches, 1);
    assert_eq!(domain.content(frame), page(2));
    domain.audit();
    domain.dissolve();
}

/// A digest that each two consecutive words have in common.
fn of_two(_: &DigestKey, page: &Page) -> PageDigest {
    PageDigest(u128::from(u64::from_ne_bytes(page[..8].try_into().unwrap()) / 2))
}

/// Frames of even words, each made of two pages of A, under the digests of the odd words.
fn poisoned(domain: &mut Domain, words: u32) -> Vec<FrameNo> {
    let make = |n: u32| {
        assert_eq!(domain.ask(A, 2 * n, u64::from(n)), Found::New);
        assert_eq!(domain.ask(A, 2 * n + 1, u64::from(n)), Found::Wanted);
        domain.bring(A, 2 * n + 1, u64::from(n), &page(2 * u64::from(n))).frames[0].unwrap()
    };
    (0..words).map(make).collect()
}

#[test]
fn who_makes_frames_of_others_hashes_loses_trust_and_who_finds_them_does_not() {
    let mut domain = domain_of(of_two);
    let frames = poisoned(&mut domain, 200);
    // B and C have the odd words.
    for member in [B, C] {
        for (n, frame) in (0..).zip(&frames) {
            assert_eq!(domain.ask(member, n, u64::from(n)), Found::Frame(*frame));
            domain.give_back(member, &[(PageNo(n), *frame)], ReturnReason::Mismatch);
        }
    }
    let doubted = |domain: &Domain| [A, B, C].map(|member| domain.member(member).unwrap().doubted);
    assert_eq!(doubted(&domain), [true, false, false]);
    domain.audit();
    // The contents are shared as if nothing had been.
    for n in 0..200 {
        let word = 2 * u64::from(n) + 1;
        assert_eq!(domain.ask(B, n, u64::from(n)), Found::New);
        assert_eq!(domain.ask(C, n, u64::from(n)), Found::Wanted);
        let frame = domain.bring(C, n, u64::from(n), &page(word)).frames[0].unwrap();
        assert_eq!(domain.content(frame), page(word));
    }
    // And A's pages keep what they have.
    assert_eq!(domain.member(A).unwrap().references, Pages(400));
    assert!((0..).zip(&frames).all(|(n, frame)| domain.content(*frame) == page(2 * n)));
    domain.audit();
    domain.dissolve();
}

#[test]
fn one_member_alone_takes_nobodys_trust_and_no_frame_off_the_index() {
    let mut domain = domain_of(of_two);
    let frames = poisoned(&mut domain, 200);
    for _ in 0..10 {
        for (n, frame) in (0..).zip(&frames) {
            assert_eq!(domain.ask(C, n, u64::from(n)), Found::Frame(*frame));
            domain.give_back(C, &[(PageNo(n), *frame)], ReturnReason::Mismatch);
        }
    }
    assert!(!domain.member(A).unwrap().doubted && !domain.member(C).unwrap().doubted);
    assert_eq!(domain.ask(B, 1, 1), Found::Frame(frames[1]));
    domain.audit();
}

#[test]
fn the_maker_of_what_another_member_keeps_is_not_blamed() {
    let mut domain = domain_of(of_two);
    let frames = poisoned(&mut domain, 200);
    // What B still holds when it asks again, it has compared.
    for (n, frame) in (0..).zip(&frames) {
        assert_eq!(domain.ask(B, n, u64::from(n)), Found::Frame(*frame));
    }
    domain.ask(B, 999, 999);
    assert!(frames.iter().all(|frame| domain.frames.maker(*frame).is_none()));
    for member in [B, C] {
        for (n, frame) in (200..).zip(&frames) {
            assert_eq!(domain.ask(member, n, u64::from(n - 200)), Found::Frame(*frame));
            domain.give_back(member, &[(PageNo(n), *frame)], ReturnReason::Mismatch);
        }
    }
    assert!([A, B, C].iter().all(|member| !domain.member(*member).unwrap().doubted));
    assert_eq!(domain.ask(C, 1, 1), Found::New, "its content can have another frame");
    domain.audit();
    // A member that gives back what it was named confirms nothing, and nor does the maker.
    let mut domain = domain_of(of_two);
    let frame = poisoned(&mut domain, 1)[0];
    for member in [A, B] {
        assert_eq!(domain.ask(member, 500, 0), Found::Frame(frame));
        domain.end(member, 500, frame);
        domain.ask(member, 501, 501);
    }
    assert_eq!(domain.ask(A, 502, 0), Found::Frame(frame));
    domain.ask(A, 501, 501);
    assert_eq!(domain.frames.maker(frame), Some(A));
}

#[test]
fn a_maker_that_finds_its_own_frames_false_loses_trust() {
    let mut domain = domain_of(of_two);
    let frame = poisoned(&mut domain, 1)[0];
    let mut asked = 0;
    while domain.ask(A, 5, 0) == Found::Frame(frame) {
        domain.give_back(A, &[(PageNo(5), frame)], ReturnReason::Mismatch);
        asked += 1;
        assert!(asked < 1000, "never left alone");
    }
    assert!(asked > 50, "an unlucky start is forgiven");
    assert!(domain.member(A).unwrap().doubted);
    assert_eq!(domain.ask(B, 7, 0), Found::Frame(frame));
}

#[test]
fn hints_of_who_is_not_trusted_are_worth_nothing() {
    let mut domain = domain_of(weak);
    domain.ask(C, 1, 1);
    let range = domain.members.get_mut(C).unwrap();
    (0..1000).for_each(|_| range.account.trust.proved_false());
    assert_eq!(domain.bring(B, 1, 1, &page(3)).frames, [None]);
    assert_eq!(domain.ask(A, 1, 1), Found::New);
    assert_eq!(domain.stats().hints, Pages(1));
    assert_eq!(domain.ask(B, 1, 1), Found::Wanted);
    domain.audit();
}

#[test]
fn who_is_right_mostly_is_not_left_alone_for_what_it_is_wrong_about() {
    let mut domain = domain_of(weak);
    domain.ask(A, 0, 0);
    domain.ask(B, 0, 0);
    let frame = domain.bring(B, 0, 0, &page(2)).frames[0].unwrap();
    for turn in 0..1000 {
        assert_eq!(domain.ask(B, 5, 0), Found::Frame(frame), "after {turn}");
        domain.give_back(B, &[(PageNo(5), frame)], ReturnReason::of(turn % 3 == 0));
    }
    let member = domain.member(B).unwrap();
    assert_eq!((member.false_matches, member.doubted), (334, false));
}

#[test]
fn who_dies_half_way_leaves_nothing() {
    let mut domain = domain();
    domain.ask(A, 1, digest(1));
    assert_eq!(domain.ask(B, 1, digest(1)), Found::Wanted);
    // The member that offers; then the one that has the hint; then one that was told of a frame.
    domain.leave(B);
    assert_eq!(domain.bring(B, 1, digest(1), &page(1)).frames, [None]);
    assert_eq!(domain.ask(C, 1, digest(1)), Found::Wanted);
    domain.leave(A);
    assert_eq!(domain.bring(C, 1, digest(1), &page(1)).frames, [None]);
    assert_eq!(domain.ask(C, 1, digest(1)), Found::New);
    domain.join(A, Pages(10)).unwrap();
    assert_eq!(domain.ask(A, 1, digest(1)), Found::Wanted);
    assert!(domain.bring(A, 1, digest(1), &page(1)).frames[0].is_some());
    domain.leave(C);
    while domain.tidy().more {}
    assert_eq!((domain.stats().frames, domain.stats().references), (Pages(1), Pages(1)));
    domain.audit();
    domain.dissolve();
}

#[test]
fn one_domain_knows_nothing_of_another() {
    let (mut one, mut other) = (domain(), domain());
    let frame = one.share(A, B, 1, 1);
    assert_eq!(other.ask(A, 1, digest(1)), Found::New);
    assert_eq!(other.end(B, 1, frame).ignored, 1);
    let (a, b) = (one.pool().unwrap(), other.pool().unwrap());
    let inode = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_ne!(inode(&a), inode(&b));
    assert_eq!(other.content(frame), page(0));
}
