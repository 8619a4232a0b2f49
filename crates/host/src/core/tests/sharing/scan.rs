use super::*;

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
        assert_eq!(world.host().state, plimsoll_policy::State::High);
        (world.scans[&run].share, world.scans[&run].break_large)
    };
    assert_eq!((scan(false), scan(true)), ((20, false), (2500, true)));
}
