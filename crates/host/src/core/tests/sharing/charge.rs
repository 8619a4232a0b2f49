use super::*;

/// Frames cost no VM without a part in them anything. All parts together are the frames.
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
