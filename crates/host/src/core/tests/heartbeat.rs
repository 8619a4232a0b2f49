use super::*;

fn events_with(world: &World, part: &str) -> usize {
    world.core.events.after(0).iter().filter(|event| event.text.contains(part)).count()
}

#[test]
fn a_vmm_that_reports_no_more_is_named_until_it_answers() {
    let mut world = World::new(640);
    let (a, b) = (world.up(definition("a", 256, "")), world.up(definition("b", 256, "")));
    for _ in 0..12 {
        world.pass(SECOND);
        world.report(b, Pages(0));
    }
    assert_eq!(world.vm("a").note.as_deref(), Some("VMM has not answered for 12 s"));
    assert_eq!((world.vm("b").note, events_with(&world, "has not answered")), (None, 1));
    world.report(a, Pages(0));
    assert_eq!((world.vm("a").note, events_with(&world, "answers again after 12 s")), (None, 1));
}

#[test]
fn a_daemon_that_was_stopped_itself_calls_nobody_silent() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    world.pass(SECOND * 600);
    assert_eq!((world.vm("a").note, events_with(&world, "has not answered")), (None, 0));
    // A VM that ends has nothing more to say.
    world.say(run, FromVmm::Exit(ExitReason::Shutdown));
    (0..4).for_each(|_| world.pass(SECOND));
    assert_eq!((world.vm("a").note, events_with(&world, "has not answered")), (None, 0));
}
