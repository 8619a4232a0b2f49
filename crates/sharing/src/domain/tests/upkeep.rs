//! What goes on behind calls: ranges are swept, memory is given back, frames have their places.

use super::*;

/// A domain that a member of many pages has just left.
fn left() -> Domain {
    let mut domain = Domain::new(Pages(10)).unwrap();
    let size = 100_000;
    domain.join(A, Pages(size.into())).unwrap();
    domain.join(B, Pages(10)).unwrap();
    let pages: Vec<(PageNo, PageDigest)> = (0..size).map(|n| (PageNo(n), PageDigest(n.into()))).collect();
    domain.look_up(A, &pages);
    assert!(domain.leave(A).more && domain.stats().hints > Pages(50_000));
    domain
}

#[test]
fn every_look_up_and_every_return_sweeps_some_of_what_a_member_left() {
    for call in [
        |domain: &mut Domain| drop(domain.look_up(B, &[(PageNo(0), PageDigest(1 << 40))])),
        |domain: &mut Domain| {
            domain.give_back(B, &[], ReturnReason::Unused);
        },
    ] {
        let mut domain = left();
        let before = domain.stats().hints;
        call(&mut domain);
        let swept = (before - domain.stats().hints).0;
        assert!((1000..=1024).contains(&swept), "{swept} pages in one call");
        (0..100).for_each(|_| call(&mut domain));
        assert!(domain.stats().hints <= Pages(1));
        domain.audit();
    }
}

#[test]
fn one_call_gives_back_no_more_than_takes_a_moment() {
    const FRAMES: u32 = 10_000;
    let mut domain = Domain::new(Pages(FRAMES.into())).unwrap();
    domain.digest = keyed;
    for member in [A, B] {
        domain.join(member, Pages(FRAMES.into())).unwrap();
    }
    for n in 0..FRAMES {
        domain.share(A, B, n, n.into());
    }
    domain.recovering = true;
    for member in [A, B] {
        domain.leave(member);
        while domain.members.vacant().is_some() {
            domain.tidy();
        }
    }
    assert_eq!(domain.stats().lingering, Pages(FRAMES.into()));
    domain.recovering = false;
    let freed: Vec<u64> = std::iter::repeat_with(|| domain.tidy().frames.0).take_while(|&n| n > 0).collect();
    assert!(freed.iter().all(|&frames| frames < 4096 + 512) && freed.len() > 2, "{freed:?}");
    assert_eq!((freed.iter().sum::<u64>(), domain.pool.resident().unwrap()), (FRAMES.into(), Pages(0)));
}

#[test]
fn frames_that_linger_are_no_excess() {
    let mut domain = domain();
    let frame = domain.share(A, B, 1, 1);
    domain.recovering = true;
    domain.end(A, 1, frame);
    domain.end(B, 1, frame);
    assert_eq!((domain.stats().lingering, domain.pool.resident().unwrap()), (Pages(1), Pages(1)));
    assert_eq!(domain.excess().unwrap(), Pages(0));
}

#[test]
fn content_that_cannot_be_kept_is_nobodys_frame_and_ends_the_offer() {
    // A pool that is shorter than the domain believes: the file cannot grow.
    let mut domain = Domain::with_pool(Pool::new(Pages(16)).unwrap(), Pages(1000), keyed).unwrap();
    [A, B].into_iter().for_each(|member| domain.join(member, Pages(1000)).unwrap());
    let pages: Vec<(PageNo, PageDigest)> = (0..40).map(|n| (PageNo(n), digest(n.into()))).collect();
    domain.look_up(A, &pages);
    domain.look_up(B, &pages);
    let mut read = Vec::new();
    let offered = domain.offer(B, &pages, |i, copy| {
        read.push(i);
        *copy = page(i as u64);
    });
    assert!(offered.error.is_some());
    let made = offered.frames.iter().map(Option::is_some);
    assert!(made.eq((0..40).map(|n| n < 16)), "{:?}", offered.frames);
    assert_eq!((offered.created, offered.notices.len()), (Pages(16), 16));
    assert!(read.into_iter().eq(0..=32), "after the first failure nothing is tried");
    assert_eq!((domain.frames.in_use(), domain.stats().hints), (16, Pages(24)));
    while domain.tidy().more {}
    domain.audit();
    assert_eq!(domain.ask(B, 20, digest(20)), Found::Wanted, "it is wanted as before");
}

#[test]
fn a_frame_is_put_behind_the_one_of_the_page_before_it() {
    let mut domain = domain();
    let frames: Vec<FrameNo> = (0..4).map(|n| domain.share(A, B, n, n.into())).collect();
    assert_eq!(frames, [0, 1, 2, 3].map(FrameNo));
    for at in [1, 3] {
        domain.end(A, at, frames[at as usize]);
        domain.end(B, at, frames[at as usize]);
    }
    domain.ask(A, 50, digest(50));
    // Page 100 has what frame 2 holds, and 101 what is new: there is room for it in front of frame
    // 2, too.
    let pages = [(PageNo(100), digest(2)), (PageNo(101), digest(50))];
    let offered = domain.offer(B, &pages, |_, copy| *copy = page(50));
    assert_eq!(offered.frames, [Some(FrameNo(2)), Some(FrameNo(3))]);
    domain.audit();
}
