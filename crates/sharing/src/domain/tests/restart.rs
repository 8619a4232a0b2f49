use std::os::fd::OwnedFd;

use plimsoll_units::FrameNo;
use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

/// A domain with five frames that A and B share, as it is left by a daemon that dies: the
/// descriptor of a member, and the frames.
fn left_behind() -> (OwnedFd, Vec<FrameNo>) {
    let mut domain = domain();
    let frames = (0..5).map(|n| domain.share(A, B, n, n.into())).collect();
    (domain.pool().unwrap(), frames)
}

fn recover(pool: &OwnedFd) -> Domain {
    let mut domain = Domain::recover(pool).unwrap();
    domain.digest = keyed;
    [A, B, C].into_iter().for_each(|member| domain.join(member, Pages(1000)).unwrap());
    domain
}

fn pairs(frames: &[FrameNo]) -> Vec<(PageNo, FrameNo)> {
    (0..).map(PageNo).zip(frames.iter().copied()).collect()
}

#[test]
fn a_restarted_daemon_finds_frames_and_references_again() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    assert_eq!(domain.stats().limit, Pages(1000));
    assert_eq!(domain.hold(A, &pairs(&frames)), Pages(5));
    assert_eq!(domain.hold(B, &pairs(&frames[..3])), Pages(3));
    domain.recovered();
    while domain.tidy().more {}
    domain.audit();
    assert_eq!((domain.stats().frames, domain.stats().references), (Pages(5), Pages(8)));
    assert_eq!(domain.ask(C, 9, digest(4)), Found::Frame(frames[4]));
    assert_eq!(domain.content(frames[4]), page(4));
    // And it goes on as ever.
    let new = domain.share(B, C, 20, 20);
    assert!(!frames.contains(&new));
    domain.audit();
    domain.dissolve();
}

#[test]
fn what_nobody_reports_goes_back_to_the_host_but_not_before_all_have_reported() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    domain.hold(A, &pairs(&frames[..2]));
    // A gives one back before B, which maps it too, has reported it.
    assert_eq!(domain.end(A, 0, frames[0]).freed, Pages(0));
    domain.tidy();
    domain.ask(C, 30, digest(30));
    assert_eq!(domain.ask(A, 30, digest(30)), Found::Wanted);
    assert_eq!(domain.bring(A, 30, digest(30), &page(30)).frames, [None], "a frame may be anybody's");
    assert_eq!(domain.hold(B, &pairs(&frames[..2])), Pages(2));
    assert_eq!(domain.content(frames[0]), page(0));
    domain.recovered();
    while domain.tidy().more {}
    assert_eq!((domain.stats().frames, domain.pool.resident().unwrap()), (Pages(2), Pages(2)));
    domain.audit();
    domain.dissolve();
}

#[test]
fn memory_that_nobody_has_reported_yet_is_not_taken_for_nobodys() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    domain.hold(A, &pairs(&frames[..2]));
    assert_eq!(domain.excess().unwrap(), Pages(3));
    domain.scrub();
    assert!(!domain.tidy().more);
    assert_eq!((domain.stats().lingering, domain.stats().frames), (Pages(0), Pages(2)));
    assert_eq!(domain.hold(B, &pairs(&frames[..4])), Pages(4));
    domain.recovered();
    while domain.tidy().more {}
    assert_eq!((domain.stats().frames, domain.excess().unwrap()), (Pages(4), Pages(0)));
    domain.audit();
}

#[test]
fn reports_that_cannot_be_true_are_not_taken() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    // A hole, what is behind the end, a page twice, a page or a member that does not exist.
    assert_eq!(domain.hold(A, &[(PageNo(0), FrameNo(700)), (PageNo(0), FrameNo(1000))]), Pages(0));
    assert_eq!(domain.hold(A, &[(PageNo(0), FrameNo(u32::MAX)), (PageNo(1000), frames[0])]), Pages(0));
    assert_eq!(domain.hold(A, &[(PageNo(0), frames[0]), (PageNo(0), frames[1])]), Pages(1));
    assert_eq!(domain.hold(MemberId(50), &[(PageNo(0), frames[0])]), Pages(0));
    domain.recovered();
    assert_eq!(domain.hold(B, &pairs(&frames)), Pages(0), "too late: it may be another frame by now");
    while domain.tidy().more {}
    domain.audit();
    assert_eq!(domain.stats().references, Pages(1));
}

#[test]
fn two_frames_of_one_content_are_both_kept() {
    // A frame that was freed and not punched, which a hostile member claims, and the one that came
    // after it.
    let (pool, frames) = left_behind();
    let before = Domain::recover(&pool).unwrap();
    before.pool.write(FrameNo(800), &[page(2)]).unwrap();
    drop(before);
    let mut domain = recover(&pool);
    assert_eq!(domain.hold(C, &[(PageNo(0), FrameNo(800))]), Pages(1));
    assert_eq!(domain.hold(A, &pairs(&frames)), Pages(5));
    domain.recovered();
    while domain.tidy().more {}
    domain.audit();
    assert_eq!((domain.content(frames[2]), domain.content(FrameNo(800))), (page(2), page(2)));
    domain.dissolve();
}

#[test]
fn each_domain_and_each_start_has_a_key_of_its_own_and_finds_its_frames_by_it() {
    let mut domain = Domain::new(Pages(1000)).unwrap();
    [A, B].into_iter().for_each(|member| domain.join(member, Pages(1000)).unwrap());
    let before = domain.digest_key();
    assert_ne!(before, Domain::new(Pages(1000)).unwrap().digest_key());
    domain.ask(A, 0, before.digest(&page(5)));
    let frame = domain.bring(B, 0, before.digest(&page(5)), &page(5)).frames[0].unwrap();
    let pool = domain.pool().unwrap();
    drop(domain);
    let mut domain = Domain::recover(&pool).unwrap();
    let after = domain.digest_key();
    assert_ne!(before, after);
    domain.join(A, Pages(1000)).unwrap();
    domain.hold(A, &[(PageNo(0), frame)]);
    domain.recovered();
    assert_eq!(domain.ask(A, 1, before.digest(&page(5))), Found::New);
    assert_eq!(domain.ask(A, 2, after.digest(&page(5))), Found::Frame(frame));
}

#[test]
fn the_first_that_reports_a_frame_stands_for_its_maker_until_another_reports_it() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    domain.hold(A, &pairs(&frames));
    domain.hold(B, &pairs(&frames[..3]));
    let makers: Vec<_> = frames.iter().map(|frame| domain.frames.maker(*frame)).collect();
    assert_eq!(makers, [None, None, None, Some(A), Some(A)]);
}

#[test]
fn a_hint_gives_way_to_a_frame_that_is_reported() {
    let (pool, frames) = left_behind();
    let mut domain = recover(&pool);
    assert_eq!(domain.ask(C, 8, digest(1)), Found::New);
    domain.hold(A, &pairs(&frames));
    assert_eq!(domain.ask(B, 8, digest(1)), Found::Frame(frames[1]));
    domain.recovered();
    while domain.tidy().more {}
    domain.audit();
}

#[test]
fn files_that_are_no_pools_are_refused() {
    let unsealed = memfd_create(c"other", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let pipe = std::io::pipe().unwrap().0.into();
    for file in [unsealed, pipe] {
        let error = Domain::recover(&file).unwrap_err();
        assert!(matches!(error, Error::NotAPool { .. }), "{error}");
    }
}
