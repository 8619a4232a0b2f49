use super::*;

fn conflict(world: &mut World, request: Request) -> String {
    let failure = world.answer(request).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Conflict);
    failure.text
}

fn power(world: &mut World, request: Request) -> Power {
    let Ok(Answer::Vm(vm)) = world.answer(request) else { panic!() };
    vm.power
}

#[test]
fn a_paused_vm_is_shown_as_such_until_it_goes_on() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    assert!(conflict(&mut world, Request::Resume(name("a"))).contains("is not paused"));
    assert_eq!(power(&mut world, Request::Pause(name("a"))), Power::Paused);
    assert_eq!(world.told.last(), Some(&(run, ToVmm::Pause(true))));
    assert!(conflict(&mut world, Request::Pause(name("a"))).contains("is paused already"));
    for request in [Request::Stop(name("a")), Request::Reset(name("a"))] {
        assert!(conflict(&mut world, request).contains("resume it first"));
    }
    assert_eq!(power(&mut world, Request::Resume(name("a"))), Power::On);
    assert_eq!(world.told.last(), Some(&(run, ToVmm::Pause(false))));
    assert_eq!(power(&mut world, Request::Reset(name("a"))), Power::On);
    assert_eq!(world.told.last(), Some(&(run, ToVmm::Reset)));
}

#[test]
fn what_its_vmm_reports_is_shown_to_a_restarted_daemon() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let facts = world.core.run(run).unwrap().facts;
    world.say(run, FromVmm::Report(Facts { paused: true, ..facts }));
    assert_eq!(world.vm("a").power, Power::Paused);
    assert_eq!(world.vm("a").stalled, None);
    world.say(run, FromVmm::Report(facts));
    assert_eq!(world.vm("a").power, Power::On);
}

#[test]
fn only_a_vm_at_work_is_paused_or_reset() {
    let mut world = World::new(640);
    let requests = [Request::Pause(name("a")), Request::Reset(name("a"))];
    for request in requests.clone() {
        assert_eq!(world.answer(request).unwrap_err().kind, FailureKind::Unknown);
    }
    world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    for request in requests.clone() {
        assert!(conflict(&mut world, request).contains("is being started"));
    }
    world.answer(Request::Define(Box::new(definition("b", 256, "")))).unwrap();
    assert!(conflict(&mut world, Request::Reset(name("b"))).contains("is off"));
}
