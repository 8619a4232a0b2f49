use super::*;

fn process(mib: u64) -> ProcessMemory {
    ProcessMemory { anonymous: Bytes::mib(mib), shared: Bytes::ZERO }
}

fn survivor(vm: &str, claim: u64, recorded: Option<u64>, kernel: u64) -> Adopted {
    let facts =
        Facts { grant: mib(claim), held: mib(claim), ram: (4096, Bytes::mib(256)), ..Facts::default() };
    Adopted {
        definition: definition(vm, 256, ""),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        remarks: vec![],
        facts,
        recorded: recorded.map(mib),
        swap: Pages(0),
        kernel: KernelAccount { ram: Bytes::mib(kernel), process: process(kernel) },
        domains: vec![],
        former: vec![],
        references: None,
    }
}

#[test]
fn an_adopted_vm_is_charged_its_claim_within_what_was_recorded_and_never_less_than_the_kernel_says() {
    for (claim, recorded, kernel, charge) in [
        (100, Some(100), 90, 100),
        (90, Some(100), 80, 90),
        (250, Some(100), 90, 100),
        (10, Some(100), 90, 90),
        (u64::MAX >> 30, None, 90, 256),
        (0, None, 200, 200),
    ] {
        let mut world = World::new(640);
        world.adopt(survivor("a", claim, recorded, kernel));
        assert_eq!(world.vm("a").grant, Bytes::mib(charge), "{claim} {recorded:?} {kernel}");
        assert!(world.core.ledger.adds_up());
    }
}

#[test]
fn a_vm_that_is_charged_more_than_it_claims_is_told_and_what_it_waits_for_comes() {
    let mut world = World::new(640);
    let found = survivor("a", 80, Some(100), 90);
    let facts = found.facts;
    let run = world.core.discover(World::discovered(&found, "its VMM has not answered yet"));
    let effects = world.core.handle(world.clock, Input::Reached(run, Box::new(found)));
    let told = |effect: &Effect| matches!(effect, Effect::Grant { pages, .. } if *pages == mib(10));
    assert!(effects.iter().any(told), "{effects:?}");
    world.granted.insert(run, mib(90));
    // Without that, 10 MiB would seem to be under way to it at each report.
    let facts = Facts { grant: mib(90), held: mib(90), wanted: Pages(1), ..facts };
    world.say(run, FromVmm::Report(facts));
    assert_eq!(world.vm("a").wanted, Pages(1).bytes());
    world.pass(SECOND);
    assert!(world.vm("a").grant > Bytes::mib(90));
}

#[test]
fn a_vm_that_cannot_be_spoken_to_keeps_its_memory_and_its_name_and_can_be_killed() {
    let mut world = World::new(640);
    let run = world.discover(&survivor("a", 0, Some(100), 90), "its VMM speaks version 99 of the protocol");
    world.pass(SECOND * 12);
    let vm = world.vm("a");
    assert!(vm.note.as_ref().is_some_and(|note| note.contains("unreachable for 12 s")), "{vm:?}");
    assert!(vm.note.is_some_and(|note| note.contains("version 99")));
    assert_eq!((vm.power, vm.grant), (Power::On, Bytes::mib(100)));
    for request in [Request::Stop(name("a")), Request::Change(name("a"), VmChange::default())] {
        assert!(world.answer(request).unwrap_err().text.contains("version 99"));
    }
    let again = world.answer(Request::Create(Box::new(definition("a", 64, "")))).unwrap_err();
    assert!(again.text.contains("is on"), "{}", again.text);
    world.ask(Request::Kill(name("a")));
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert_eq!((world.vm("a").power, world.host().free), (Power::Off, Bytes::mib(640)));
}

#[test]
fn a_vm_that_answers_late_is_adopted_in_full() {
    let mut world = World::new(640);
    let run = world.discover(&survivor("a", 0, Some(100), 90), "its VMM does not answer");
    world.pass(SECOND * 30);
    assert_eq!(world.granted.get(&run), None, "nothing is given to a VM that cannot be heard");
    world.input(Input::Reached(run, Box::new(survivor("a", 80, Some(100), 70))));
    let vm = world.vm("a");
    assert_eq!((vm.note, vm.grant), (None, Bytes::mib(80)));
    world.say(run, FromVmm::Want(mib(16)));
    assert_eq!(world.vm("a").grant, Bytes::mib(96));
    assert!(world.answer(Request::Stop(name("a"))).is_ok());
}

#[test]
fn a_vm_whose_record_cannot_be_read_is_charged_what_the_kernel_shows() {
    let mut world = World::new(640);
    let found = survivor("a", 0, None, 90);
    let kernel = KernelAccount { ram: Bytes::ZERO, ..found.kernel };
    let run = world.core.discover(Discovered {
        pid: None,
        started: None,
        definition: None,
        domains: None,
        kernel,
        ..World::discovered(&found, "its record is broken")
    });
    let overhead = world.vm("a").overhead;
    assert_eq!(world.vm("a").grant + overhead, Bytes::mib(90));
    // It is seen to grow.
    world.input(Input::Processes(vec![(run, process(120))]));
    assert_eq!(world.vm("a").grant + overhead, Bytes::mib(120));
    let refused = world.answer(Request::Kill(name("a"))).unwrap_err();
    assert!(refused.text.contains("process is not known"), "{}", refused.text);
    world.input(Input::Identified(run, 9));
    world.ask(Request::Kill(name("a")));
    assert_eq!(world.killed, [run]);
    world.input(Input::Exited(run, "signal 9".into()));
    assert!(world.saved.is_empty(), "there is no record to write");
    assert!(world.answer(Request::Start(name("a"))).unwrap_err().text.contains("cannot be read"));
}

#[test]
fn what_was_changed_since_it_was_started_outlives_the_daemon() {
    let changed = definition("a", 256, "pool = 'prod'\nshares = 'high'\nreservation = '32MiB'");
    let record = Record { started: Some(Timestamp::UNIX_EPOCH), ..Record::new(changed.clone()) };
    let old = Record { started: None, ..record.clone() };
    for (record, shares, saved) in [(record, changed.shares, 0), (old, Shares::Normal, 1)] {
        let mut world = World::new(640);
        let pools = vec![serde_json::from_str(r#"{"name": "prod"}"#).unwrap()];
        let pools = Pools::new(pools).unwrap();
        world.core = Core::new(world.core.settings, vec![record], pools, world.clock);
        world.adopt(survivor("a", 100, Some(100), 90));
        assert_eq!(world.core.vms[&name("a")].record.definition.shares, shares);
        assert_eq!(world.saved.len(), saved, "a run that the inventory does not know is written back");
    }
}

#[test]
fn a_record_that_cannot_be_read_is_neither_replaced_nor_written() {
    for (replaceable, saved) in [(false, 0), (true, 1)] {
        let mut world = World::new(640);
        let unread = Unread { why: "its record cannot be read: EOF".to_owned(), replaceable };
        let record = Record::new(definition("a", 64, ""));
        world.core.unreadable(record, unread);
        for request in [
            Request::Create(Box::new(definition("a", 64, ""))),
            Request::Start(name("a")),
            Request::Definition(name("a")),
            Request::Change(name("a"), VmChange::default()),
        ] {
            let refused = world.answer(request).unwrap_err();
            assert!(refused.text.contains("cannot be read: EOF"), "{}", refused.text);
        }
        assert!(world.vm("a").note.is_some_and(|note| note.contains("EOF")));
        // Its VM runs, and its run record tells all.
        let run = world.adopt(survivor("a", 100, Some(100), 90));
        assert_eq!((world.saved.len(), world.vm("a").size), (saved, Bytes::mib(256)));
        world.input(Input::Exited(run, "signal 9".into()));
        assert_eq!(world.saved.len(), 2 * saved);
    }
}
