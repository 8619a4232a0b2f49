use super::*;

#[test]
fn a_vm_is_charged_when_it_starts_and_free_again_only_when_its_process_is_gone() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let host = world.host();
    assert_eq!(host.granted.0 + host.overhead.0 + host.free.0, Bytes::mib(640).0);
    assert_eq!(world.vm("a").grant, world.granted[&run].bytes());
    let kill = world.ask(Request::Kill(name("a")));
    assert_eq!((world.killed.as_slice(), world.answers.get(&kill)), (&[run][..], None));
    assert_eq!(world.host().granted, host.granted);
    world.input(Input::Exited(run, "signal 9".into()));
    assert!(matches!(&world.answers[&kill], Ok(Answer::Vm(vm)) if vm.exit == Some(Exit::KilledByOperator)));
    assert_eq!((world.host().free, world.cleared.as_slice()), (Bytes::mib(640), &[run][..]));
}

#[test]
fn admission_counts_reservations_and_the_refusal_gives_both_numbers() {
    let mut world = World::new(640);
    world.up(definition("a", 256, "reservation = '256MiB'"));
    world.up(definition("b", 256, "reservation = '256MiB'"));
    let before = world.host();
    let refused = world.answer(Request::Create(Box::new(definition("c", 256, "reservation = '128MiB'"))));
    let failure = refused.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NoMemory);
    assert!(
        failure.text.contains("138.5MiB") && failure.text.contains("107MiB of 640MiB"),
        "{}",
        failure.text
    );
    assert_eq!(world.host(), before);
    assert!(world.answer(Request::Get(name("c"))).is_err(), "nothing is half made");
}

#[test]
fn who_starts_a_vm_is_told_where_it_is_not_on_disk() {
    let mut world = World::new(640);
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.input(Input::Unsaved(Some(name("a")), Some("no space left".to_owned())));
    world.input(Input::Launched(run, Ok(Started::example())));
    world.say(run, FromVmm::Running { missing_jail: vec![] });
    match &world.answers[&id] {
        Ok(Answer::Unsaved(done, why)) => {
            assert!(matches!(&**done, Answer::Vm(vm) if vm.power == Power::On) && why == "no space left");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_start_that_fails_leaves_no_trace() {
    let mut world = World::new(640);
    let before = world.host();
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    let failure = Failure::new(FailureKind::Unfit, "kernel /k: cannot be opened");
    world.input(Input::Launched(run, Err(failure)));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("kernel /k")), "{:?}", world.answers);
    assert_eq!((world.host().free, world.forgotten.len()), (before.free, 1));
    assert!(world.answer(Request::Get(name("a"))).is_err());
    // The same after the VMM itself gave up, with a VM of that name known before.
    let old = world.up(definition("a", 128, ""));
    world.say(old, FromVmm::Exit(ExitReason::Shutdown));
    world.input(Input::Exited(old, "exit code 0".into()));
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.input(Input::Launched(run, Ok(Started::example())));
    world.say(run, FromVmm::Exit(ExitReason::Failed("no usable KVM".into())));
    world.input(Input::Exited(run, "exit code 1".into()));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("no usable KVM")));
    let vm = world.vm("a");
    assert_eq!((vm.size, vm.exit), (Bytes::mib(128), Some(Exit::Told(ExitReason::Shutdown))));
}

#[test]
fn a_start_that_fails_before_there_is_a_vmm_is_no_failure_of_the_vmm() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    world.input(Input::Exited(run, "exit code 0".into()));
    let start = world.ask(Request::Start(name("a")));
    let run = RunId(world.core.last_run);
    let failure = Failure::new(FailureKind::Unfit, "cannot write run.json: no space left");
    world.input(Input::Launched(run, Err(failure)));
    assert!(matches!(&world.answers[&start], Err(f) if f.text.contains("cannot write run.json")));
    let exit = world.vm("a").exit.unwrap();
    assert_eq!(exit.to_string(), "did not start: cannot write run.json: no space left");
}

#[test]
fn a_name_twice_is_refused_while_the_first_is_on() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    let refused = world.answer(Request::Create(Box::new(definition("a", 128, "")))).unwrap_err();
    assert!(refused.kind == FailureKind::Conflict && refused.text.contains("is on"), "{}", refused.text);
    assert!(world.answer(Request::Forget(name("a"))).is_err());
    world.input(Input::Exited(run, "signal 11".into()));
    assert!(matches!(world.vm("a").exit, Some(Exit::Vanished(how)) if how == "signal 11"));
    world.up(definition("a", 128, ""));
    assert_eq!(world.vm("a").size, Bytes::mib(128));
}

#[test]
fn a_jail_part_that_is_missing_and_not_allowed_ends_the_vm() {
    let mut world = World::new(640);
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.input(Input::Launched(run, Ok(Started::example())));
    world.say(run, FromVmm::Running { missing_jail: vec![JailPart::Seccomp] });
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert!(matches!(&world.answers[&id], Err(f) if f.text.contains("seccomp")));
}

#[test]
fn a_vmm_that_says_it_ends_and_does_not_is_ended() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, ""));
    world.say(run, FromVmm::Exit(ExitReason::Shutdown));
    world.input(Input::Closed(run));
    world.pass(SECOND);
    assert!(world.killed.is_empty());
    world.pass(LAST_GRACE);
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert_eq!(world.vm("a").exit, Some(Exit::Told(ExitReason::Shutdown)));
}

#[test]
fn a_start_that_takes_long_is_answered_in_the_meantime() {
    let mut world = World::new(640);
    let id = world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    world.pass(REQUEST_TIMEOUT);
    assert!(matches!(&world.answers[&id], Ok(Answer::Vm(vm)) if vm.power == Power::Starting));
}

#[test]
fn a_start_waits_for_balloons_and_is_refused_in_the_end() {
    let mut world = World::new(256);
    let holder = world.up(definition("holder", 256, ""));
    world.say(holder, FromVmm::Want(mib(256)));
    let first = world.ask(Request::Create(Box::new(definition("b", 128, "reservation = '32MiB'"))));
    assert_eq!((world.vm("b").power, world.launches.len()), (Power::Starting, 1));
    let granted = world.granted[&holder];
    for _ in 0..5 {
        world.pass(SECOND);
        world.say(holder, FromVmm::Want(mib(8)));
    }
    assert_eq!(world.granted[&holder], granted, "what is to start it is not given away");
    assert!(world.balloons[&holder] > Pages::ZERO);
    follow(&mut world, holder);
    assert_eq!(world.launches.len(), 2);
    let kill = world.ask(Request::Kill(name("b")));
    let run = world.launches[1].0;
    world.input(Input::Launched(run, Err(Failure::new(FailureKind::Unfit, "no"))));
    assert!(world.answers[&first].is_err() && world.answers[&kill].is_ok());
    assert_eq!(world.vm("b").exit, Some(Exit::KilledByOperator));
    // The next time the holder does not follow.
    world.say(holder, FromVmm::Want(mib(256)));
    let second = world.ask(Request::Create(Box::new(definition("c", 128, "reservation = '64MiB'"))));
    world.pass(REQUEST_TIMEOUT);
    assert!(matches!(&world.answers[&second], Err(f) if f.text.contains("free now")), "{:?}", world.answers);
    assert!(world.answer(Request::Get(name("c"))).is_err(), "nothing is half made");
    let third = world.ask(Request::Create(Box::new(definition("c", 128, "reservation = '64MiB'"))));
    let kill = world.ask(Request::Kill(name("c")));
    assert!(world.answers[&third].is_err() && world.answers[&kill].is_ok());
    assert_eq!(world.vm("c").power, Power::Off);
}
