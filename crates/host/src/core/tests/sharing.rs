use std::os::unix::fs::{FileExt, MetadataExt};

use plimsoll_protocol::sharing::{DomainId, DomainStatus, Found, MAX_BATCH, Sharing, WINDOW};
use plimsoll_units::{FrameNo, PageNo, page_hash};

use crate::domains::Known;

use super::*;

/// A page of content `n`.
fn content(n: u8) -> [u8; 4096] {
    [n; 4096]
}

fn hash(n: u8) -> u64 {
    page_hash(&content(n))
}

/// VMMs that share, as far as the core sees them.
impl World {
    fn in_domain(&mut self, vm: &str, sharing: &str) -> RunId {
        let mut definition = definition(vm, 256, "");
        definition.memory.sharing = sharing.parse().unwrap();
        self.up(definition)
    }

    fn domain(&self, run: RunId) -> DomainId {
        match self.sharing[&run].0 {
            SharingKind::Frames { domain, .. } => domain,
            other => panic!("{other:?}"),
        }
    }

    fn look_up(&mut self, run: RunId, pages: &[(u32, u64)]) -> Vec<Found> {
        let domain = self.domain(run);
        self.look_up_in(run, domain, pages)
    }

    fn look_up_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, u64)]) -> Vec<Found> {
        let pages = pages.iter().map(|(page, hash)| (PageNo(*page), *hash)).collect();
        self.say(run, FromVmm::LookUp { domain, id: 7, pages });
        match self.said.pop() {
            Some((to, ToVmm::Found { id: 7, found })) if to == run => found,
            other => panic!("{other:?}"),
        }
    }

    /// Offers pages of a content each, and says of them what it is told to.
    fn offer_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, u8, u64)]) -> Vec<Option<FrameNo>> {
        for (i, (_, n, _)) in pages.iter().enumerate() {
            self.sharing[&run].1[1].write_all_at(&content(*n), i as u64 * 4096).unwrap();
        }
        let pages = pages.iter().map(|(page, _, hash)| (PageNo(*page), *hash)).collect();
        self.said.clear();
        self.say(run, FromVmm::Offer { domain, id: 8, pages });
        let answer =
            self.said.iter().position(|(to, said)| *to == run && matches!(said, ToVmm::Offered { .. }));
        match self.said.remove(answer.expect("it is answered")).1 {
            ToVmm::Offered { id: 8, frames } => frames,
            other => panic!("{other:?}"),
        }
    }

    fn offer(&mut self, run: RunId, pages: &[(u32, u8)]) -> Vec<Option<FrameNo>> {
        let domain = self.domain(run);
        let pages: Vec<_> = pages.iter().map(|(page, n)| (*page, *n, hash(*n))).collect();
        self.offer_in(run, domain, &pages)
    }

    fn give_back(&mut self, run: RunId, pages: &[(u32, FrameNo)]) {
        let domain = self.domain(run);
        self.give_back_in(run, domain, pages);
    }

    fn give_back_in(&mut self, run: RunId, domain: DomainId, pages: &[(u32, FrameNo)]) {
        let pages = pages.iter().map(|(page, frame)| (PageNo(*page), *frame)).collect();
        self.say(run, FromVmm::GiveBack { domain, pages, mismatched: false });
    }

    /// `a` and `b` come to share content `n` in their pages of that number.
    fn share(&mut self, a: RunId, b: RunId, n: u8) -> FrameNo {
        let page = u32::from(n);
        assert_eq!(self.look_up(a, &[(page, hash(n))]), [Found::New]);
        assert_eq!(self.look_up(b, &[(page, hash(n))]), [Found::Wanted]);
        let frame = self.offer(b, &[(page, n)])[0].expect("it is taken");
        let told = ToVmm::Share { domain: self.domain(a), pages: vec![(PageNo(page), frame)] };
        assert_eq!(self.said.pop(), Some((a, told)));
        frame
    }

    fn frame(&self, run: RunId, frame: FrameNo) -> [u8; 4096] {
        let mut page = [0; 4096];
        self.sharing[&run].1[0].read_exact_at(&mut page, u64::from(frame.0) * 4096).unwrap();
        page
    }

    fn domains(&mut self) -> Vec<DomainStatus> {
        match self.answer(Request::Sharing) {
            Ok(Answer::Sharing(domains)) => domains,
            other => panic!("{other:?}"),
        }
    }

    fn set_sharing(&mut self, vm: &str, sharing: &str) -> Result<Answer, Failure> {
        let change = VmChange { sharing: Some(sharing.parse().unwrap()), ..VmChange::default() };
        self.answer(Request::Change(name(vm), change))
    }
}

fn pages(n: u64) -> Bytes {
    Pages(n).bytes()
}

#[test]
fn equal_pages_become_a_frame_that_the_ledger_counts_until_the_last_page_needs_it_no_more() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let (granted, free) = (world.granted[&b], world.host().free);
    let frame = world.share(a, b, 5);
    assert_eq!(world.frame(a, frame), content(5));
    assert_eq!(world.granted[&b], granted - Pages(1), "it pays for the frame");
    let host = world.host();
    assert_eq!((host.frames, host.shared, host.free), (pages(1), pages(2), free));
    let vm = world.vm("a").sharing;
    assert_eq!(
        (vm.with, vm.shared, vm.charged),
        (Sharing::With("prod".parse().unwrap()), pages(1), pages(1))
    );
    // A third page costs nothing but a reference.
    assert_eq!(world.look_up(b, &[(99, hash(5))]), [Found::Frame(frame)]);
    assert_eq!((world.host().frames, world.host().shared), (pages(1), pages(3)));
    let domain = world.domains();
    assert_eq!((domain.len(), domain[0].saved, domain[0].vms.len()), (1, pages(2), 2));
    world.give_back(a, &[(5, frame)]);
    world.give_back(b, &[(5, frame), (5, frame), (7, frame)]);
    assert_eq!(world.host().frames, pages(1), "what is not held does not count");
    world.give_back(b, &[(99, frame)]);
    assert_eq!((world.host().frames, world.host().free), (Bytes::ZERO, free + pages(1)));
}

#[test]
fn what_is_not_as_it_was_said_is_not_taken_and_costs_nobody_memory() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let (granted, free) = (world.granted[&b], world.host().free);
    world.look_up(a, &[(1, hash(1))]);
    world.look_up(b, &[(2, hash(1)), (3, hash(3))]);
    let domain = world.domain(b);
    // Another content than announced, nobody else has it, and a page that it does not have.
    let frames = world.offer_in(b, domain, &[(2, 9, hash(1)), (3, 3, hash(3)), (u32::MAX, 1, hash(1))]);
    assert_eq!(frames, [None, None, None]);
    assert_eq!((world.granted[&b], world.host().free, world.host().frames), (granted, free, Bytes::ZERO));
    // A window that holds nothing is none of the daemon's trouble.
    let window = world.sharing[&b].1[1].try_clone().unwrap();
    rustix::fs::fallocate(
        &window,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        0,
        4096,
    )
    .unwrap();
    let offer = FromVmm::Offer { domain, id: 1, pages: vec![(PageNo(2), hash(1))] };
    world.say(b, offer);
    assert_eq!(world.host().frames, Bytes::ZERO);
}

#[test]
fn who_sends_more_than_the_protocol_allows_is_ended() {
    type Say = fn(DomainId) -> FromVmm;
    let too_much: [Say; 4] = [
        |domain| FromVmm::LookUp { domain, id: 0, pages: vec![(PageNo(0), 0); MAX_BATCH + 1] },
        |domain| FromVmm::Offer { domain, id: 0, pages: vec![(PageNo(0), 0); WINDOW + 1] },
        |domain| FromVmm::GiveBack {
            domain,
            pages: vec![(PageNo(0), FrameNo(0)); MAX_BATCH + 1],
            mismatched: true,
        },
        |domain| FromVmm::Offer { domain, id: 0, pages: vec![(PageNo(0), 0)] },
    ];
    for (i, say) in too_much.into_iter().enumerate() {
        let mut world = World::new(640);
        let (good, evil) = (world.in_domain("good", "prod"), world.in_domain("evil", "prod"));
        let granted = world.granted[&evil];
        if i == 3 {
            world.say(evil, FromVmm::Return(granted));
        }
        world.say(evil, say(world.domain(evil)));
        assert_eq!(world.killed, [evil], "{i}");
        assert_eq!(world.look_up(good, &[(1, hash(1))]), [Found::New]);
    }
}

/// The same content in two domains, and a VMM that knows everything about the other one.
#[test]
fn a_frame_of_one_domain_is_never_named_to_a_member_of_another() {
    let mut world = World::new(1280);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let (spy, other) = (world.in_domain("spy", "test"), world.in_domain("other", "own"));
    let frame = world.share(a, b, 5);
    let prod = world.domain(a);
    for run in [spy, other] {
        assert_eq!(world.look_up(run, &[(5, hash(5))]), [Found::New], "its own domain knows nothing of it");
        assert_eq!(world.look_up_in(run, prod, &[(6, hash(5))]), [Found::Busy]);
        assert_eq!(world.offer_in(run, prod, &[(6, 5, hash(5))]), [None]);
        world.give_back_in(run, prod, &[(5, frame), (6, frame)]);
        assert_eq!(world.domain(run), DomainId(world.sharing[&run].1[0].metadata().unwrap().ino()));
        assert_ne!(world.domain(run), prod, "nor is its descriptor one of that file");
        assert_eq!(world.vm(if run == spy { "spy" } else { "other" }).sharing.shared, Bytes::ZERO);
    }
    assert!(world.said.iter().all(|(to, _)| *to != spy && *to != other), "{:?}", world.said);
    assert_eq!((world.host().shared, world.host().frames), (pages(2), pages(1)));
    // Nor after it has been a member and left.
    world.set_sharing("b", "test").unwrap();
    assert_ne!(world.domain(b), prod);
    assert_eq!(world.look_up_in(b, prod, &[(9, hash(5))]), [Found::Busy]);
    assert_eq!(world.look_up(b, &[(9, hash(5))]), [Found::Wanted], "the spy said that it has it");
}

#[test]
fn frames_are_open_for_reading_only_and_the_window_keeps_its_size() {
    let mut world = World::new(640);
    let run = world.in_domain("a", "own");
    let [frames, window] = &world.sharing[&run].1[..] else { panic!("two descriptors") };
    assert!(frames.write_at(&[1], 0).is_err() && frames.set_len(0).is_err());
    assert!(window.set_len(1 << 30).is_err() && window.write_at(&[1], 0).is_ok());
}

#[test]
fn a_flood_costs_its_own_vm_its_answers_and_nobody_else_anything() {
    let mut world = World::new(640);
    let (good, evil) = (world.in_domain("good", "prod"), world.in_domain("evil", "prod"));
    let batch: Vec<(u32, u64)> = (0..512).map(|n| (n, u64::from(n))).collect();
    let mut answered = 0;
    for _ in 0..10_000 {
        answered += usize::from(world.look_up(evil, &batch) != [Found::Busy; 512]);
    }
    assert!((100..1000).contains(&answered), "{answered}");
    assert_eq!(world.look_up(good, &[(0, hash(1))]), [Found::New]);
    // Giving back is always taken, and counts as well.
    let bogus: Vec<(u32, FrameNo)> = (0..512).map(|n| (n, FrameNo(n))).collect();
    (0..1000).for_each(|_| world.give_back(evil, &bogus));
    world.pass(Duration::from_millis(100));
    assert_eq!(world.look_up(evil, &[(0, hash(1))]), [Found::Busy]);
    world.pass(SECOND);
    assert_eq!(world.look_up(evil, &[(0, hash(1))]), [Found::Wanted]);
    assert_eq!(world.host().frames, Bytes::ZERO);
}

/// It looks up what others have without having it, and never gives anything back.
#[test]
fn references_that_are_never_used_count_against_their_own_vm() {
    let mut world = World::new(2048);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let evil = world.in_domain("evil", "prod");
    let frame = world.share(a, b, 5);
    let lacks = mib(256) - world.granted[&evil];
    world.say(evil, FromVmm::Want(lacks));
    assert_eq!(world.granted[&evil], mib(256));
    let mut held = 0;
    for start in (0..65536).step_by(512) {
        let batch: Vec<(u32, u64)> = (start..start + 512).map(|n| (n, hash(5))).collect();
        held += world.look_up(evil, &batch).iter().filter(|found| **found == Found::Frame(frame)).count();
        world.pass(Duration::from_millis(10));
    }
    assert!(held <= 8192 + 512, "{held}");
    assert_eq!(world.vm("evil").sharing.shared, pages(held as u64));
    world.say(evil, FromVmm::Want(mib(256)));
    assert_eq!(world.granted[&evil], mib(256), "it has its size already");
    // The frame is charged to it nearly alone.
    assert_eq!(world.vm("evil").sharing.charged, pages(1));
    world.give_back(a, &[(5, frame)]);
    world.give_back(b, &[(5, frame)]);
    assert_eq!(world.host().frames, pages(1));
    world.input(Input::Exited(evil, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.host().frames, world.host().shared), (Bytes::ZERO, Bytes::ZERO));
}

#[test]
fn a_vm_that_dies_half_way_leaves_the_others_what_they_have() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let frame = world.share(a, b, 5);
    // It dies before it reads that its offer was taken, and with hints that others may find.
    world.look_up(b, &[(6, hash(6)), (7, hash(7))]);
    world.input(Input::Exited(b, "signal 9".into()));
    assert_eq!((world.host().frames, world.host().shared), (pages(1), pages(1)));
    assert_eq!(world.frame(a, frame), content(5));
    assert_eq!(world.look_up(a, &[(6, hash(6))]), [Found::New], "a hint of nobody is none");
    let c = world.in_domain("c", "prod");
    assert_eq!(world.look_up(c, &[(1, hash(5)), (2, hash(7))]), [Found::Frame(frame), Found::New]);
    world.input(Input::Exited(a, "signal 9".into()));
    assert_eq!(world.frame(c, frame), content(5));
    world.input(Input::Exited(c, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.host().frames, Bytes::ZERO);
    assert_eq!(world.domains(), []);
}

#[test]
fn a_vm_changes_domains_and_its_frames_stay_until_it_has_given_them_back() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let frame = world.share(a, b, 5);
    let prod = world.domain(a);
    world.look_up(a, &[(6, hash(6))]);
    world.set_sharing("a", "zero").unwrap();
    assert_eq!(world.sharing[&a].0, SharingKind::Zero);
    assert!(world.vm("a").sharing.leaving);
    let refused = world.set_sharing("a", "prod").unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert_eq!(
        world.look_up(b, &[(6, hash(6))]),
        [Found::New],
        "where the other one has gone, it knows no hints left behind"
    );
    assert_eq!(world.vm("a").sharing.shared, pages(1));
    world.give_back_in(b, prod, &[(5, frame)]);
    assert_eq!(world.host().frames, pages(1), "one of them still has it");
    world.give_back_in(a, prod, &[(5, frame)]);
    assert!(!world.vm("a").sharing.leaving);
    assert_eq!(world.host().frames, Bytes::ZERO);
    world.set_sharing("a", "prod").unwrap();
    assert_eq!((world.domain(a), world.domains()[0].vms.len()), (world.domain(b), 2));
}

impl World {
    /// From now on the host has memory to spare, or none.
    fn set_room(&mut self, room: bool) {
        let min_free = Bytes::mib(if room { 30 } else { 10_000 });
        self.core.settings.thresholds = Thresholds::of_min_free(min_free);
    }
}

/// What a process sees in the file of a domain that it has kept.
fn sees(pool: &File, n: u8) -> bool {
    let mut page = [0; 4096];
    (0..64).any(|frame| pool.read_exact_at(&mut page, frame * 4096).is_ok() && page == content(n))
}

#[test]
fn who_left_a_domain_never_reads_what_others_share_in_it_later() {
    let mut world = World::new(1280);
    let [a, b, c] = ["a", "b", "c"].map(|vm| world.in_domain(vm, "prod"));
    let frame = world.share(a, b, 5);
    assert_eq!(world.look_up(c, &[(5, hash(5)), (6, hash(6))]), [Found::Frame(frame), Found::New]);
    let (prod, spy) = (world.domain(a), world.sharing[&a].1[0].try_clone().unwrap());
    world.set_room(false);
    world.set_sharing("a", "test").unwrap();
    assert!(sees(&spy, 5), "what it has seen before it has seen");
    // Without room for leaving, the others keep what they share. Nothing comes to it.
    (0..10).for_each(|_| world.pass(SECOND));
    assert_eq!((world.domain(b), world.domain(c)), (prod, prod));
    assert!(world.domains()[0].closed);
    assert_eq!(world.look_up(b, &[(6, hash(6))]), [Found::Busy]);
    assert_eq!(world.offer(b, &[(6, 6)]), [None]);
    assert_eq!(world.look_up(b, &[(7, hash(5))]), [Found::Frame(frame)], "what is a frame is shared");
    // Nor while it has given everything back, nor when a VM joins that was not there before.
    world.give_back_in(a, prod, &[(5, frame)]);
    let d = world.in_domain("d", "prod");
    assert_ne!(world.domain(d), prod);
    assert_eq!(world.offer(b, &[(6, 6)]), [None]);
    // With room they move to where it cannot see them.
    world.set_room(true);
    world.pass(SECOND);
    assert_eq!([world.domain(b), world.domain(c)], [world.domain(d); 2]);
    for (n, (one, other)) in [(6, (b, c)), (7, (d, c)), (8, (d, b))] {
        let frame = world.share(one, other, n);
        assert_eq!(world.frame(d, frame), content(n));
        assert!(!sees(&spy, n));
    }
    assert!(world.vm("b").sharing.leaving && world.vm("c").sharing.leaving);
    world.give_back_in(b, prod, &[(5, frame), (7, frame)]);
    assert!(sees(&spy, 5), "somebody still has it");
    world.give_back_in(c, prod, &[(5, frame)]);
    assert!(!sees(&spy, 5));
    assert_eq!(world.domains().iter().filter(|domain| domain.name.is_some()).count(), 2);
}

#[test]
fn a_domain_that_nobody_has_replaced_goes_on_when_the_vm_that_left_is_off_or_back() {
    for comes_back in [false, true] {
        let mut world = World::new(1280);
        let [a, b, c] = ["a", "b", "c"].map(|vm| world.in_domain(vm, "prod"));
        let frame = world.share(a, b, 5);
        let prod = world.domain(a);
        assert_eq!(world.look_up(c, &[(5, hash(5))]), [Found::Frame(frame)]);
        world.set_room(false);
        world.set_sharing("a", "off").unwrap();
        assert_eq!(
            (world.look_up(b, &[(6, hash(6))]), world.look_up(c, &[(6, hash(6))])),
            (vec![Found::New], vec![Found::Busy])
        );
        if comes_back {
            world.give_back_in(a, prod, &[(5, frame)]);
            world.set_sharing("a", "prod").unwrap();
            assert_eq!(world.domain(a), prod);
        } else {
            world.input(Input::Exited(a, "signal 9".into()));
        }
        assert!(!world.domains()[0].closed);
        assert_eq!(world.look_up(c, &[(6, hash(6))]), [Found::Wanted]);
        assert!(world.offer(c, &[(6, 6)])[0].is_some());
        world.set_room(true);
        world.pass(SECOND);
        assert_eq!([world.domain(b), world.domain(c)], [prod; 2]);
    }
}

#[test]
fn a_daemon_that_comes_after_another_knows_who_has_left() {
    for known_by in ["the last two domains", "those before"] {
        let mut before = World::new(640);
        let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
        let frame = before.share(a, b, 5);
        let spy = before.sharing[&a].1[0].try_clone().unwrap();
        let mut left = survivor(&mut before, a, &[]);
        left.definition.memory.sharing = Sharing::Off;
        left.stock = None;
        if known_by == "those before" {
            left.former = std::mem::take(&mut left.domains);
        }
        let stays = survivor(&mut before, b, &[(5, frame)]);
        let mut world = World::new(640);
        let [_, b] = world.take_over([left, stays].map(Ok));
        let c = world.in_domain("c", "prod");
        world.share(b, c, 6);
        assert!(!sees(&spy, 6), "known by {known_by}");
    }
}

#[test]
fn what_a_vmm_does_not_hear_of_it_does_not_hold() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let frame = world.share(a, b, 5);
    let domain = world.domain(a);
    world.input(Input::Unsent(a, domain, vec![(PageNo(5), frame)]));
    assert_eq!((world.vm("a").sharing.shared, world.host().frames), (Bytes::ZERO, pages(1)));
}

/// Frames take no entitlement from who has no part in them, and all parts together are what they
/// take.
#[test]
fn frames_are_charged_to_those_who_share_them_in_equal_parts() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    world.in_domain("c", "own");
    for n in 0..200 {
        world.share(a, b, n);
    }
    let charged = |world: &mut World, vm: &str| world.vm(vm).sharing.charged;
    assert_eq!(world.host().frames, pages(200));
    assert_eq!(
        (charged(&mut world, "a"), charged(&mut world, "b"), charged(&mut world, "c")),
        (pages(100), pages(100), Bytes::ZERO)
    );
    // What b paid for all of them is not taken for idle memory of a: levels are told in a VM's own
    // pages.
    world.core.run_mut(a).unwrap().swap = mib(256);
    let limit = VmChange { limit: Some(OrNone::To(Bytes::mib(60))), ..VmChange::default() };
    world.answer(Request::Change(name("a"), limit)).unwrap();
    world.report(a, Pages(0));
    world.pass(SECOND);
    let (level, _) = world.levels[&a];
    assert!(level <= mib(60) - Pages(100), "{level:?}");
}

#[test]
fn a_balloon_leaves_out_what_is_shared() {
    let balloon = |merged: u64| {
        let mut world = World::new(640);
        let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
        world.say(a, FromVmm::Want(mib(192)));
        let frame = world.share(a, b, 5);
        for start in (1000..1000 + merged).step_by(512) {
            let batch: Vec<(u32, u64)> =
                (start..start + 512).map(|n| (u32::try_from(n).unwrap(), hash(5))).collect();
            assert_eq!(world.look_up(a, &batch), [Found::Frame(frame); 512]);
            world.say(a, FromVmm::Return(Pages(512)));
        }
        let limit = VmChange { limit: Some(OrNone::To(Bytes::mib(128))), ..VmChange::default() };
        world.answer(Request::Change(name("a"), limit)).unwrap();
        for _ in 0..10 {
            world.pass(SECOND);
            world.report(a, Pages(0));
        }
        world.balloons[&a]
    };
    let (without, with) = (balloon(0), balloon(8192));
    assert!(without.0.abs_diff(mib(128).0) < 600, "{without:?}");
    assert!((without - with).0.abs_diff(8192) < 600, "{without:?} {with:?}");
}

#[test]
fn an_idle_host_has_vms_look_and_a_vm_without_gain_stops() {
    let mut world = World::new(640);
    let run = world.in_domain("a", "own");
    world.input(Input::Processors(crate::processors::Processors { idle: 1.0, number: 8 }));
    world.report(run, Pages(0));
    world.pass(SECOND);
    assert_eq!(world.scans[&run].share, 10_000);
    for n in 1..100u64 {
        let facts = Facts {
            grant: world.granted[&run],
            held: world.granted[&run],
            scanned: n * 5000,
            ..Facts::default()
        };
        world.say(run, FromVmm::Report(facts));
        world.pass(SECOND);
    }
    assert!(world.scans[&run].share <= 20, "{:?}", world.scans[&run]);
    assert!(
        (15 << 20..25 << 20).contains(&world.vm("a").sharing.scan_rate.0),
        "{}",
        world.vm("a").sharing.scan_rate
    );
}

#[test]
fn eager_sharing_looks_and_breaks_large_pages_while_there_is_memory_whatever_that_has_brought() {
    let scan = |eager| {
        let mut world = World::new(4096);
        world.core.settings.eager_sharing = eager;
        let run = world.in_domain("a", "prod");
        world.input(Input::Processors(crate::processors::Processors { idle: 0.5, number: 1 }));
        let held = world.granted[&run];
        world.say(run, FromVmm::Report(Facts { grant: held, held, scanned: 1 << 24, ..Facts::default() }));
        world.pass(SECOND);
        assert_eq!(world.host().state, plimsoll_protocol::api::HostState::High);
        (world.scans[&run].share, world.scans[&run].break_large)
    };
    assert_eq!((scan(false), scan(true)), ((20, false), (2500, true)));
}

fn definition_in_prod(vm: &str) -> VmDefinition {
    let mut definition = definition(vm, 256, "");
    definition.memory.sharing = "prod".parse().unwrap();
    definition
}

/// A VM of `before`, as a daemon that comes after it finds it; what it says it holds.
fn survivor(before: &mut World, run: RunId, holds: &[(u32, FrameNo)]) -> Adopted {
    let (name, domain) = (before.core.runs[&run].clone(), before.domain(run));
    let known = Known { id: domain, name: Some("prod".parse().unwrap()) };
    let grant = before.granted[&run];
    Adopted {
        definition: definition_in_prod(name.as_str()),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        recorded: Some(grant),
        swap: Pages(0),
        kernel: KernelAccount {
            ram: Bytes::mib(1),
            process: ProcessMemory { anonymous: Bytes::mib(1), shared: Bytes::mib(1) },
        },
        domains: vec![known.clone()],
        former: vec![],
        stock: Some(Stock {
            domain: known,
            pool: before.sharing[&run].1[0].try_clone().unwrap().into(),
            holds: holds.iter().map(|(page, frame)| (PageNo(*page), *frame)).collect(),
        }),
        facts: Facts { grant, held: grant, ram: (4096, Bytes::mib(256)), ..Facts::default() },
    }
}

impl World {
    /// Finds VMs of an earlier daemon. Those in `Err` cannot be spoken to.
    fn take_over<const N: usize>(&mut self, found: [Result<Adopted, Adopted>; N]) -> [RunId; N] {
        let known = found.map(|adopted| {
            let why = "its VMM has not answered yet";
            let vm = adopted.as_ref().unwrap_or_else(|adopted| adopted);
            (self.core.discover(World::discovered(vm, why)), adopted.ok())
        });
        let runs = known.map(|(run, adopted)| {
            if let Some(adopted) = adopted {
                self.input(Input::Reached(run, Box::new(adopted)));
            }
            run
        });
        self.pass(SECOND);
        runs
    }
}

#[test]
fn a_daemon_that_comes_after_another_takes_over_its_frames() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let domain = before.domain(a);
    // One that only `b` still has: it is known to nobody else.
    before.give_back(a, &[(6, six)]);
    let survivors = [
        survivor(&mut before, a, &[(5, five)]),
        survivor(&mut before, b, &[(5, five), (6, six), (6, five), (7, FrameNo(99)), (8, FrameNo(u32::MAX))]),
    ];
    let free = before.host().free;
    let mut world = World::new(640);
    let [a, b] = world.take_over(survivors.map(Ok));
    assert_eq!((world.domain(a), world.domain(b)), (domain, domain), "they are told the same number again");
    let host = world.host();
    assert_eq!((host.frames, host.shared, host.free), (pages(2), pages(3), free));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(6)));
    // It goes on as before: what is known is found, and what is new is made.
    assert_eq!(world.look_up(a, &[(9, hash(6))]), [Found::Frame(six)]);
    world.share(a, b, 7);
    world.give_back(b, &[(5, five), (6, six)]);
    world.give_back(a, &[(5, five), (9, six)]);
    assert_eq!(world.host().frames, pages(1));
}

#[test]
fn frames_stay_as_long_as_somebody_may_map_them_who_cannot_be_asked() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let heard = survivor(&mut before, a, &[(5, five)]);
    let unheard = Adopted { stock: None, ..survivor(&mut before, b, &[]) };
    let mut world = World::new(640);
    let [a, b] = world.take_over([Ok(heard), Err(unheard)]);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6), "only the unreachable VM maps it");
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(0)));
    assert_eq!(world.host().frames, pages(1));
}

#[test]
fn a_vm_that_answers_late_brings_its_frames_with_it() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let first = survivor(&mut before, a, &[(5, five)]);
    let late = survivor(&mut before, b, &[(6, six)]);
    let mut world = World::new(640);
    let b = world.core.discover(World::discovered(&late, "it is late"));
    let a = world.adopt(first);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6));
    world.input(Input::Reached(b, Box::new(late)));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(6)));
    assert_eq!(world.host().frames, pages(2));
    // Nothing is taken for unheard any more.
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, six), world.host().frames), (content(0), pages(1)));
}

#[test]
fn a_vm_whose_run_record_cannot_be_read_may_map_any_frame() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let (five, six) = (before.share(a, b, 5), before.share(a, b, 6));
    let first = survivor(&mut before, a, &[(5, five)]);
    let unknown = survivor(&mut before, b, &[]);
    let mut world = World::new(640);
    let found = Discovered { domains: None, ..World::discovered(&unknown, "its record is broken") };
    let b = world.core.discover(found);
    let a = world.adopt(first);
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!(world.frame(a, six), content(6));
    world.input(Input::Exited(b, "signal 9".into()));
    (0..100).for_each(|_| world.pass(SECOND));
    assert_eq!((world.frame(a, five), world.frame(a, six)), (content(5), content(0)));
}

#[test]
fn a_vm_that_answers_late_shares_with_those_that_were_started_meanwhile() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let five = before.share(a, b, 5);
    for shared_meanwhile in [false, true] {
        let late = survivor(&mut before, b, &[(5, five)]);
        let mut world = World::new(640);
        let b = world.core.discover(World::discovered(&late, "it is late"));
        let (c, d) = (world.in_domain("c", "prod"), world.in_domain("d", "prod"));
        if shared_meanwhile {
            world.share(c, d, 7);
        }
        world.input(Input::Reached(b, Box::new(late)));
        (0..100).for_each(|_| world.pass(SECOND));
        assert_eq!([world.domain(b), world.domain(c)], [world.domain(d); 2], "{shared_meanwhile}");
    }
}

#[test]
fn a_vm_that_brings_another_file_than_its_own_shares_nothing_with_anybody() {
    let mut before = World::new(640);
    let (a, b) = (before.in_domain("a", "prod"), before.in_domain("b", "prod"));
    let frame = before.share(a, b, 5);
    let mut evil = survivor(&mut before, b, &[(5, frame)]);
    // Its own window, which it can write to, in place of the frames.
    let window = before.sharing[&b].1[1].try_clone().unwrap();
    evil.stock.iter_mut().for_each(|stock| stock.pool = window.try_clone().unwrap().into());
    let good = survivor(&mut before, a, &[(5, frame)]);
    let mut world = World::new(640);
    let [b, a] = world.take_over([evil, good].map(Ok));
    assert_eq!((world.vm("a").sharing.shared, world.vm("b").sharing.shared), (pages(1), Bytes::ZERO));
    assert_eq!(world.domain(a), world.domain(b), "from now on it may share as before");
}

#[test]
fn many_vms_that_ask_have_equal_parts_of_the_daemons_time() {
    let mut world = World::new(4096);
    let runs: Vec<RunId> = (0..12).map(|i| world.in_domain(&format!("vm{i}"), "own")).collect();
    // All have asked in the last second, and are quiet for a moment.
    for _ in 0..2 {
        runs.iter().for_each(|run| drop(world.look_up(*run, &[(0, 1)])));
        world.clock.now += Duration::from_millis(1100);
    }
    let all: Vec<(u32, u64)> = (0..512).map(|page| (page, u64::from(page))).collect();
    for run in runs {
        let answered =
            (0..200).take_while(|_| !world.look_up(run, &all).contains(&Found::Busy)).count() * all.len();
        assert!(
            (30_000..=50_000).contains(&answered),
            "{answered}: a twelfth of half a million, alone 250 000"
        );
    }
}

#[test]
fn a_few_domains_are_tidied_at_a_time_and_all_in_turn() {
    let mut world = World::new(4096);
    let pairs: Vec<[RunId; 2]> = (0..10)
        .map(|i| ["a", "b"].map(|vm| world.in_domain(&format!("{vm}{i}"), &format!("d{i}"))))
        .collect();
    for &[a, b] in &pairs {
        world.share(a, b, 5);
    }
    let chores = |world: &World| {
        let domains = &world.core.domains;
        domains.all().filter(|(id, _)| domains.get(*id).is_some_and(|d| d.has_chores())).count()
    };
    world.core.urgent = false;
    for &[_, b] in &pairs {
        world.input(Input::Exited(b, "signal 9".into()));
    }
    let mut left = vec![chores(&world)];
    while *left.last().unwrap() > 0 {
        world.clock.now += Duration::from_millis(100);
        world.core.control();
        left.push(chores(&world));
        assert!(left.len() < 1000, "{left:?}");
    }
    assert!(left.windows(2).all(|two| two[0] - two[1] <= 4), "{left:?}");
    assert!(left[0] >= 6 && left.len() > 3, "{left:?}");
}
