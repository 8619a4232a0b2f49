use std::os::unix::fs::MetadataExt;

use plimsoll_protocol::sharing::{MAX_BATCH, WINDOW};

use super::*;

#[test]
fn what_is_not_as_it_was_said_is_not_taken_and_costs_nobody_memory() {
    let mut world = World::new(640);
    let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
    let (granted, free) = (world.granted[&b], world.host().free);
    world.look_up(a, &[(1, hash(1))]);
    world.look_up(b, &[(2, hash(1)), (3, hash(3))]);
    let domain = world.domain(b);
    // Content that differs from its digest, content that no other VM has, and a page outside of the
    // VM.
    let frames = world.offer_in(b, domain, &[(2, 9, hash(1)), (3, 3, hash(3)), (u32::MAX, 1, hash(1))]);
    assert_eq!(frames, [None, None, None]);
    assert_eq!((world.granted[&b], world.host().free, world.host().frames), (granted, free, Bytes::ZERO));
    // A window with a hole does the daemon no harm.
    let window = world.sharing[&b].1[1].try_clone().unwrap();
    rustix::fs::fallocate(
        &window,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        0,
        4096,
    )
    .unwrap();
    let offer = FromVmm::Offer { domain, id: 1, pages: vec![(PageNo(2), world.digest(b, hash(1)))] };
    world.say(b, offer);
    assert_eq!(world.host().frames, Bytes::ZERO);
}

#[test]
fn who_sends_more_than_the_protocol_allows_is_ended() {
    type Say = fn(DomainId) -> FromVmm;
    let too_much: [Say; 4] = [
        |domain| FromVmm::LookUp { domain, id: 0, pages: vec![(PageNo(0), PageDigest(0)); MAX_BATCH + 1] },
        |domain| FromVmm::Offer { domain, id: 0, pages: vec![(PageNo(0), PageDigest(0)); WINDOW + 1] },
        |domain| FromVmm::GiveBack {
            domain,
            pages: vec![(PageNo(0), FrameNo(0)); MAX_BATCH + 1],
            mismatched: true,
        },
        |domain| FromVmm::Offer { domain, id: 0, pages: vec![(PageNo(0), PageDigest(0))] },
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
    let batch: Vec<(u32, u64)> = (0..512).map(|n| (n, 1000 + u64::from(n))).collect();
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
