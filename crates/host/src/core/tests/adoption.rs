use super::*;

fn survivor(vm: &str, claim: u64, recorded: Option<u64>, kernel: u64) -> Adopted {
    let facts =
        Facts { grant: mib(claim), held: mib(claim), ram: (4096, Bytes::mib(256)), ..Facts::default() };
    Adopted {
        definition: definition(vm, 256, ""),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        facts: Ok(facts),
        recorded: recorded.map(mib),
        swap: Pages(0),
        kernel: KernelAccount { ram: Bytes::mib(kernel), process: Bytes::mib(kernel), shared: Bytes::ZERO },
        domains: vec![],
        former: vec![],
        stock: None,
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
        world.core.adopt(survivor("a", claim, recorded, kernel)).unwrap();
        assert_eq!(world.vm("a").grant, Bytes::mib(charge), "{claim} {recorded:?} {kernel}");
        assert!(world.core.ledger.adds_up());
    }
}

#[test]
fn a_vmm_of_another_version_is_named_and_only_killing_is_possible() {
    let mut world = World::new(640);
    let foreign = Adopted { facts: Err(foreign(99).unwrap()), ..survivor("a", 0, Some(100), 90) };
    let run = world.core.adopt(foreign).unwrap();
    let vm = world.vm("a");
    assert!(vm.note.is_some_and(|note| note.contains("version 99")));
    assert_eq!(vm.grant, Bytes::mib(100));
    assert!(world.answer(Request::Stop(name("a"))).unwrap_err().text.contains("version 99"));
    world.ask(Request::Kill(name("a")));
    assert_eq!(world.killed, [run]);
}

#[test]
fn what_was_changed_since_it_was_started_outlives_the_daemon() {
    let changed = definition("a", 256, "pool = 'prod'\nshares = 'high'\nreservation = '32MiB'");
    let record = Record { definition: changed.clone(), started: Some(Timestamp::UNIX_EPOCH), exit: None };
    let old = Record { started: None, ..record.clone() };
    for (record, shares) in [(record, changed.shares), (old, Shares::Normal)] {
        let world = World::new(640);
        let pools = vec![serde_json::from_str(r#"{"name": "prod"}"#).unwrap()];
        let pools = Pools::new(pools).unwrap();
        let mut core = Core::new(world.core.settings, vec![record], pools, world.clock);
        core.adopt(survivor("a", 100, Some(100), 90)).unwrap();
        assert_eq!(core.vms[&name("a")].record.definition.shares, shares);
    }
}
