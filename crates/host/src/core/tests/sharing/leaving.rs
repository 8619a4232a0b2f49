use super::*;

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

#[test]
fn who_left_a_domain_never_reads_what_others_share_in_it_later() {
    let mut world = World::new(1280);
    let [a, b, c] = ["a", "b", "c"].map(|vm| world.in_domain(vm, "prod"));
    let frame = world.share(a, b, 5);
    assert_eq!(world.look_up(c, &[(5, hash(5)), (6, hash(6))]), [Found::Frame(frame), Found::New]);
    let (prod, spy) = (world.domain(a), world.sharing[&a].1[0].try_clone().unwrap());
    world.set_room(false);
    world.set_sharing("a", "test").unwrap();
    assert!(sees(&spy, 5), "it has read that before");
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
    assert!(sees(&spy, 5), "a VM still refers to it");
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
