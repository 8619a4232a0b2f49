//! What may happen between an order and its report.

use super::*;

impl World {
    /// A world in which `a` and `b` share, and from now on a plane that does nothing by itself.
    fn with_slow_plane() -> (Self, RunId, RunId) {
        let mut world = Self::new(640);
        let (a, b) = (world.in_domain("a", "prod"), world.in_domain("b", "prod"));
        assert_eq!(world.look_up(a, &[(5, hash(5))]), [Found::New]);
        assert_eq!(world.look_up(b, &[(5, hash(5))]), [Found::Wanted]);
        world.slow = true;
        (world, a, b)
    }

    /// `run` offers content 5 in its page 5.
    fn offer_five(&mut self, run: RunId) {
        self.sharing[&run].1[1].write_all_at(&content(5), 0).unwrap();
        let offer = FromVmm::Offer {
            domain: self.domain(run),
            id: 8,
            pages: vec![(PageNo(5), self.digest(run, hash(5)))],
        };
        self.say(run, offer);
    }
}

#[test]
fn an_offered_page_is_neither_returned_nor_granted_to_others_before_it_is_a_frame() {
    let (mut world, a, b) = World::with_slow_plane();
    let (granted, free) = (world.granted[&b], world.host().free);
    world.offer_five(b);
    assert_eq!((world.granted[&b], world.host().free, world.host().frames), (granted, free, Bytes::ZERO));
    world.say(b, FromVmm::Return(granted - Pages(1)));
    assert_eq!(world.killed, []);
    world.say(b, FromVmm::Return(Pages(1)));
    assert_eq!(world.killed, [b], "it has offered that page");
    world.catch_up();
    assert_eq!((world.granted[&b], world.host().frames), (Pages(0), pages(1)));
    assert_eq!(world.vm("a").sharing.shared, pages(1));
    assert!(world.said.iter().any(|(to, said)| *to == a && matches!(said, ToVmm::Share { .. })));
}

#[test]
fn a_vm_that_waits_for_memory_exceeds_no_limit_when_its_offer_is_refused() {
    let (mut world, _, b) = World::with_slow_plane();
    let limit = VmChange { limit: Some(OrNone::To(Bytes::mib(100))), ..VmChange::default() };
    world.answer(Request::Change(name("b"), limit)).unwrap();
    let domain = world.domain(b);
    // Nobody else has this content.
    let pages = vec![(PageNo(6), world.digest(b, hash(6)))];
    world.say(b, FromVmm::Offer { domain, id: 8, pages });
    world.say(b, FromVmm::Want(mib(256)));
    assert_eq!(world.granted[&b], mib(100));
    world.catch_up();
    assert_eq!(world.granted[&b], mib(100));
    let offered = |said: &ToVmm| *said == ToVmm::Offered { id: 8, frames: vec![None] };
    assert!(world.said.iter().any(|(to, said)| *to == b && offered(said)));
}

#[test]
fn a_vm_that_ends_before_its_offer_is_carried_out_leaves_no_memory_uncounted() {
    let (mut world, a, b) = World::with_slow_plane();
    let free = world.host().free;
    let overhead = overhead(&definition("b", 256, ""));
    let has = world.granted[&b] + overhead;
    world.offer_five(b);
    world.input(Input::Exited(b, "signal 9".into()));
    assert_eq!(world.host().frames, pages(1), "it may become a frame");
    assert_eq!(world.host().free, free + has.bytes() - pages(1));
    // The plane knows more than the core has heard.
    assert!(world.carry_out());
    assert_eq!((world.plane.frames(), world.host().frames), (Pages(1), pages(1)));
    world.catch_up();
    assert_eq!((world.vm("a").sharing.shared, world.host().frames), (pages(1), pages(1)));
    let domain = world.domain(a);
    world.say(a, FromVmm::GiveBack { domain, pages: vec![(PageNo(5), FrameNo(0))], mismatched: false });
    world.catch_up();
    assert_eq!((world.host().frames, world.host().free), (Bytes::ZERO, free + has.bytes()));
}

#[test]
fn a_vm_that_is_moved_while_it_asks_is_answered_first_and_gives_back_what_it_found() {
    let (mut world, a, b) = World::with_slow_plane();
    world.offer_five(b);
    world.catch_up();
    let prod = world.domain(a);
    world.said.clear();
    let five = world.digest(a, hash(5));
    world.say(a, FromVmm::LookUp { domain: prod, id: 9, pages: vec![(PageNo(9), five)] });
    world.set_sharing("a", "test").unwrap();
    let refused = world.set_sharing("a", "prod").unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict, "it moves already");
    world.say(a, FromVmm::LookUp { domain: prod, id: 10, pages: vec![(PageNo(10), five)] });
    assert_eq!(world.domain(a), prod, "it is told when it has moved");
    world.catch_up();
    assert_ne!(world.domain(a), prod);
    let found = |id, found| (a, ToVmm::Found { id, found: vec![found] });
    assert_eq!(world.said, [found(9, Found::Frame(FrameNo(0))), found(10, Found::Busy)]);
    assert!(world.vm("a").sharing.leaving);
    let all = vec![(PageNo(5), FrameNo(0)), (PageNo(9), FrameNo(0))];
    world.say(a, FromVmm::GiveBack { domain: prod, pages: all, mismatched: false });
    world.catch_up();
    assert!(!world.vm("a").sharing.leaving);
    assert_eq!(world.vm("a").sharing.shared, Bytes::ZERO);
}

#[test]
fn a_page_that_becomes_shared_while_its_vm_moves_is_told_and_given_back() {
    let (mut world, a, b) = World::with_slow_plane();
    let prod = world.domain(a);
    world.offer_five(b);
    // The plane makes the frame, with a reference of `a`; before the core hears that, `a` moves.
    world.carry_out();
    world.set_sharing("a", "off").unwrap();
    world.carry_out();
    let offered = world.reports.pop_front().unwrap();
    let moved = world.reports.pop_front().unwrap();
    // The notice is for a domain that `a` still listens to, as far as the core knows.
    world.input(Input::Reported(Box::new(offered)));
    assert!(matches!(world.said.last(), Some((to, ToVmm::Share { .. })) if *to == a));
    world.input(Input::Reported(Box::new(moved)));
    assert!(world.vm("a").sharing.leaving);
    world.catch_up();
    // Its VMM does not read, and never hears of it.
    world.input(Input::Unsent(a, prod, vec![(PageNo(5), FrameNo(0))]));
    world.catch_up();
    assert_eq!((world.vm("a").sharing.leaving, world.vm("a").sharing.shared), (false, Bytes::ZERO));
    assert_eq!(world.host().frames, pages(1), "`b` has it still");
}

#[test]
fn a_slow_plane_is_asked_to_tidy_once() {
    let (mut world, ..) = World::with_slow_plane();
    (0..10).for_each(|_| world.pass(SECOND));
    let tidy = |world: &World| world.orders.iter().filter(|order| matches!(order, Order::Tidy)).count();
    assert_eq!(tidy(&world), 1);
    world.catch_up();
    world.pass(SECOND);
    assert_eq!(tidy(&world), 1);
}

#[test]
fn what_a_vm_waits_for_is_not_served_by_its_own_offer() {
    let (mut world, _, b) = World::with_slow_plane();
    let domain = world.domain(b);
    let grant = world.granted[&b];
    let pages: Vec<_> = (6..46).map(|n| (PageNo(n), world.digest(b, hash(6)))).collect();
    world.say(b, FromVmm::Offer { domain, id: 8, pages });
    // Nothing is given out meanwhile.
    world.core.recovering = 1;
    world.say(b, FromVmm::Want(Pages(10)));
    let left = grant - Pages(40);
    let ram = (4096, Bytes::mib(256));
    world.say(
        b,
        FromVmm::Report(Facts { grant: left, held: left, wanted: Pages(10), ram, ..Facts::default() }),
    );
    assert_eq!(world.core.run(b).unwrap().wanted, Pages(10));
}
