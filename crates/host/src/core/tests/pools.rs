use plimsoll_protocol::Place;
use plimsoll_protocol::status::PoolStatus;
use serde_json::{Value, json};

use super::*;
use crate::pools::Pools;

impl World {
    /// Asks for a pool as the API would.
    pub(super) fn pool(&mut self, definition: Value) -> Result<Answer, Failure> {
        self.answer(Request::CreatePool(serde_json::from_value(definition).unwrap()))
    }

    pub(super) fn set_pool(&mut self, pool: &str, change: Value) -> Result<Answer, Failure> {
        let change = serde_json::from_value(change).unwrap();
        self.answer(Request::ChangePool(pool.parse().unwrap(), change))
    }

    pub(super) fn set(&mut self, vm: &str, change: Value) -> Result<Answer, Failure> {
        self.answer(Request::Change(name(vm), serde_json::from_value(change).unwrap()))
    }

    fn pools(&mut self) -> Vec<PoolStatus> {
        match self.answer(Request::Pools) {
            Ok(Answer::Pools(pools)) => pools,
            other => panic!("{other:?}"),
        }
    }

    fn entitled(&mut self, vm: &str) -> u64 {
        self.vm(vm).entitlement.0 >> 20
    }
}

/// Two VMs in a pool and one beside it, all of which would use more than there is.
pub(super) fn crowd() -> (World, [RunId; 3]) {
    let mut world = World::new(640);
    world.pool(json!({"name": "prod", "shares": 2560})).unwrap();
    let runs = [("a", "pool = 'prod'"), ("b", "pool = 'prod'"), ("c", "")]
        .map(|(vm, more)| world.up(definition(vm, 256, more)));
    for _ in 0..60 {
        for run in runs {
            world.say(run, FromVmm::Want(mib(256) - world.granted[&run]));
            follow(&mut world, run);
        }
        world.pass(SECOND);
    }
    (world, runs)
}

#[test]
fn a_pool_is_one_among_its_siblings_whatever_it_holds() {
    let (mut world, _) = crowd();
    // Of what is there the pool may have half, and its VMs half of that; what the other cannot use
    // is left to them.
    let (a, b, c) = (world.entitled("a"), world.entitled("b"), world.entitled("c"));
    assert!(a.abs_diff(b) <= 1 && c > 240, "{a} {b} {c}");
    world.set_pool("prod", json!({"shares": 5120})).unwrap();
    let (a, c) = (world.entitled("a"), world.entitled("c"));
    assert!(a.abs_diff(c) <= 1, "{a} {c}");
    let pools = world.pools();
    assert_eq!(pools[0].entitled, world.vm("a").entitlement + world.vm("b").entitlement);
    assert_eq!(pools[0].granted, world.vm("a").grant + world.vm("b").grant);
}

#[test]
fn vms_and_pools_move_while_they_run() {
    let (mut world, _) = crowd();
    world.pool(json!({"name": "web", "parent": "prod"})).unwrap();
    world.set("c", json!({"pool": "web"})).unwrap();
    assert_eq!(world.vm("c").pool.to_string(), "web");
    let order: Vec<(String, String)> =
        world.pools().iter().map(|p| (p.name.to_string(), p.parent.to_string())).collect();
    assert_eq!(order, [("prod".into(), "/".into()), ("web".into(), "prod".into())]);
    let before = world.entitled("a");
    world.set("c", json!({"pool": "/", "shares": 100})).unwrap();
    assert!(world.entitled("a") > before);
    world.set_pool("web", json!({"parent": "/"})).unwrap();
    assert!(world.pools().iter().all(|p| p.parent == Place::Root));
}

impl World {
    /// A daemon that comes with `pools`, after all that was saved of the last VM.
    fn comes_back(&mut self, pools: &[Value]) {
        let definitions = pools.iter().map(|pool| serde_json::from_value(pool.clone()).unwrap()).collect();
        let record = self.saved.last().unwrap().clone();
        let pools = Pools::new(definitions).unwrap();
        self.core = Core::new(self.core.settings.clone(), vec![record], pools, self.clock);
        self.recorded = None;
    }
}

#[test]
fn a_vm_whose_pools_were_lost_is_in_its_pool_again_when_they_are_back() {
    let (mut world, prod) = (World::new(640), json!({"name": "prod"}));
    world.pool(prod.clone()).unwrap();
    world.answer(Request::Define(Box::new(definition("a", 256, "pool = 'prod'")))).unwrap();
    // Their file cannot be read.
    world.comes_back(&[]);
    assert_eq!(world.vm("a").pool, Place::Root);
    world.set("a", json!({"shares": 77})).unwrap();
    world.comes_back(std::slice::from_ref(&prod));
    assert_eq!((world.vm("a").pool.to_string(), world.vm("a").share_count), ("prod".to_owned(), 77));
    // One that was given another place stays there.
    world.set("a", json!({"shares": 78})).unwrap();
    world.comes_back(&[]);
    world.set("a", json!({"pool": "/"})).unwrap();
    world.comes_back(&[prod]);
    assert_eq!(world.vm("a").pool, Place::Root);
}

#[test]
fn a_vm_that_takes_the_place_of_one_that_did_not_start_is_in_a_pool_that_there_is() {
    let mut world = World::new(640);
    world.pool(json!({"name": "prod"})).unwrap();
    world.answer(Request::Define(Box::new(definition("a", 256, "pool = 'prod'")))).unwrap();
    world.ask(Request::Create(Box::new(definition("a", 256, ""))));
    let run = RunId(world.core.last_run);
    world.answer(Request::RemovePool("prod".parse().unwrap())).unwrap();
    let failed = Failure::new(FailureKind::Unfit, "it does not start");
    world.input(Input::Launched(run, Err(failed)));
    assert_eq!((world.vm("a").power, world.vm("a").pool), (Power::Off, Place::Root));
}

#[test]
fn a_pool_never_exceeds_its_limit() {
    let mut world = World::new(1024);
    world.pool(json!({"name": "small", "limit": "200MiB"})).unwrap();
    world.pool(json!({"name": "below", "parent": "small"})).unwrap();
    let runs = [("a", "small"), ("b", "below"), ("c", "below")]
        .map(|(vm, pool)| world.up(definition(vm, 256, &format!("pool = '{pool}'"))));
    for _ in 0..60 {
        for run in runs {
            world.say(run, FromVmm::Want(mib(256) - world.granted[&run]));
            let granted: Pages = runs.iter().map(|run| world.granted[run]).sum();
            assert!(granted <= mib(200), "{}", granted.bytes());
        }
        world.pass(SECOND);
    }
    assert!(world.host().free > Bytes::mib(600));
    world.set_pool("small", json!({"limit": "none"})).unwrap();
    for _ in 0..60 {
        for run in runs {
            world.say(run, FromVmm::Want(mib(256) - world.granted[&run]));
        }
        world.pass(SECOND);
    }
    assert_eq!(runs.map(|run| world.granted[&run]), [mib(256); 3]);
}

#[test]
fn what_a_pool_has_reserved_is_not_given_to_others() {
    let mut world = World::new(640);
    world.pool(json!({"name": "prod", "reservation": "200MiB"})).unwrap();
    let reserved = world.up(definition("a", 256, "pool = 'prod'"));
    let greedy = world.up(definition("b", 1024, "shares = 200000000"));
    for _ in 0..200 {
        world.say(greedy, FromVmm::Want(mib(1024)));
        world.pass(SECOND);
        world.report(greedy, Pages(0));
    }
    let lacks = mib(200) - world.granted[&reserved];
    assert!(world.core.ledger.free() >= lacks, "{}", world.core.ledger.free().bytes());
    world.say(reserved, FromVmm::Want(lacks));
    assert_eq!(world.granted[&reserved], mib(200));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (mut world, _) = crowd();
    world.pool(json!({"name": "web", "parent": "prod", "reservation": "16MiB"})).unwrap();
    world.pool(json!({"name": "lab", "limit": "64MiB"})).unwrap();
    let (pools, host) = (world.pools(), world.host());
    let cases: [(FailureKind, Result<Answer, Failure>, &str); 10] = [
        (FailureKind::Conflict, world.pool(json!({"name": "web"})), "pool web: name web is taken"),
        (
            FailureKind::Invalid,
            world.pool(json!({"name": "x", "parent": "y"})),
            "pool \"x\": parent \"y\" is no pool",
        ),
        (
            FailureKind::Invalid,
            world.pool(json!({"name": "x", "reservation": u64::MAX})),
            "pool x: reservation 16777216.0TiB: at most",
        ),
        (
            FailureKind::Invalid,
            world.set_pool("prod", json!({"parent": "web"})),
            "pool \"prod\": parent \"web\" is below \"prod\" itself, a cycle: prod < web < prod",
        ),
        (
            FailureKind::Invalid,
            world.set_pool("lab", json!({"reservation": "65MiB"})),
            "pool lab: reservation 65MiB is over the limit 64MiB",
        ),
        (FailureKind::Unknown, world.set_pool("x", json!({"shares": 1})), "pool x: no such pool"),
        (FailureKind::Invalid, world.set("a", json!({"pool": "x"})), "pool x: no such pool"),
        (FailureKind::Unknown, world.answer(Request::Pool("x".parse().unwrap())), "pool x: no such pool"),
        (
            FailureKind::Conflict,
            world.answer(Request::RemovePool("prod".parse().unwrap())),
            "pool prod still holds pool web, VM a, VM b: move or remove them first",
        ),
        (
            FailureKind::Invalid,
            world.answer(Request::Create(Box::new(definition("d", 64, "pool = 'x'")))),
            "pool x: no such pool",
        ),
    ];
    for (kind, answer, start) in cases {
        let failure = answer.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.text.starts_with(start), "{start}: {}", failure.text);
        assert_eq!(failure.text.lines().count(), 1, "{}", failure.text);
    }
    assert_eq!((world.pools(), world.host()), (pools, host));
}

#[test]
fn an_empty_pool_is_removed() {
    let mut world = World::new(640);
    world.pool(json!({"name": "a"})).unwrap();
    world.pool(json!({"name": "b", "parent": "a"})).unwrap();
    for pool in ["b", "a"] {
        world.answer(Request::RemovePool(pool.parse().unwrap())).unwrap();
    }
    assert_eq!(world.pools(), []);
    assert_eq!(world.saved_pools, Some(vec![]));
}

#[test]
fn a_vm_whose_pool_is_gone_from_disk_is_on_the_host_itself() {
    let record = Record::new(definition("a", 64, "pool = 'gone'"));
    let world = World::new(640);
    let mut core = Core::new(world.core.settings, vec![record], Pools::default(), world.clock);
    let effects = core.handle(world.clock, Input::Request(RequestId(1), Box::new(Request::Get(name("a")))));
    assert!(matches!(&effects[..], [Effect::Answer(_, Ok(Answer::Vm(vm)))] if vm.pool == Place::Root));
}

#[test]
fn what_is_reserved_within_a_pool_counts_against_it_and_no_other() {
    let mut world = World::new(640);
    world.pool(json!({"name": "fixed", "reservation": "100MiB", "expandable": false})).unwrap();
    world.pool(json!({"name": "open", "reservation": "100MiB"})).unwrap();
    let start = |world: &mut World, vm: &str, pool: &str, reserved: u64| {
        let more = format!("pool = '{pool}'\nreservation = '{reserved}MiB'");
        world.answer(Request::Create(Box::new(definition(vm, 256, &more)))).unwrap_err()
    };
    world.up(definition("a", 256, "pool = 'fixed'\nreservation = '60MiB'"));
    let refused = start(&mut world, "b", "fixed", 50);
    assert_eq!(refused.kind, FailureKind::NoMemory);
    assert!(refused.text.contains("50MiB") && refused.text.contains("\"fixed\""), "{}", refused.text);
    assert_eq!(world.host().reserved, Bytes::mib(200) + world.vm("a").overhead);
    // An expandable pool takes the rest from the host, as far as that goes.
    world.up(definition("c", 256, "pool = 'open'\nreservation = '180MiB'"));
    assert_eq!(world.host().reserved.0 >> 20, 100 + 180 + 21);
    let refused = world.set("a", json!({"reservation": "101MiB"})).unwrap_err();
    assert!(
        refused.text.starts_with("VM a cannot have reservation 101MiB in pool fixed: "),
        "{}",
        refused.text
    );
    world.set("a", json!({"pool": "/", "reservation": "101MiB"})).unwrap();
    let refused = world.set_pool("fixed", json!({"reservation": "600MiB"})).unwrap_err();
    assert!(refused.text.starts_with("pool fixed: it needs 500MiB more machine memory"), "{}", refused.text);
    let refused = world.set_pool("open", json!({"expandable": false})).unwrap_err();
    assert_eq!(refused.kind, FailureKind::NoMemory, "{}", refused.text);
    assert!(world.pools().iter().all(|p| p.reservation == Bytes::mib(100)));
    // What was lowered can be promised again.
    world.set("c", json!({"reservation": "0"})).unwrap();
    world.set_pool("open", json!({"expandable": false})).unwrap();
}

#[test]
fn a_pools_reservation_must_be_there_now() {
    let mut world = World::new(640);
    world.pool(json!({"name": "prod"})).unwrap();
    world.up(definition("a", 512, "pool = 'prod'"));
    let holder = world.up(definition("b", 512, ""));
    world.say(holder, FromVmm::Want(mib(512)));
    let refused = world.set_pool("prod", json!({"reservation": "400MiB"})).unwrap_err();
    assert!(refused.text.contains("is free now"), "{}", refused.text);
    world.set_pool("prod", json!({"reservation": "64MiB"})).unwrap();
}

#[test]
fn swap_space_is_promised_only_once_where_there_is_some() {
    let mut world = World::new(1024);
    world.core.settings.no_swap = None;
    world.core.settings.swap = Some(mib(300));
    world.up(definition("a", 256, "reservation = '56MiB'"));
    let refused = world.answer(Request::Create(Box::new(definition("b", 128, "")))).unwrap_err();
    assert!(
        refused.text.contains("128MiB more swap space") && refused.text.contains("100MiB of 300MiB"),
        "{}",
        refused.text
    );
    let refused = world.set("a", json!({"reservation": "0"}));
    assert!(refused.is_ok(), "256MiB of 300MiB");
    assert_eq!((world.host().swap, world.host().swap_reserved), (Some(Bytes::mib(300)), Bytes::mib(256)));
    world.up(definition("b", 128, "reservation = '84MiB'"));
}

#[test]
fn a_vm_above_a_lowered_limit_gets_what_its_driver_needs_to_run_and_no_more() {
    for lowered in [json!({"limit": "64MiB"}), json!({"pool": "small"})] {
        let mut world = World::new(640);
        // A VM that can page needs no such help.
        world.core.settings.rules.largest_store = 0;
        world.pool(json!({"name": "small", "limit": "64MiB"})).unwrap();
        let run = world.up(definition("a", 256, ""));
        world.say(run, FromVmm::Want(mib(136)));
        world.report(run, Pages(0));
        let before = world.granted[&run];
        world.set("a", lowered).unwrap();
        for _ in 0..60 {
            world.say(run, FromVmm::Want(mib(32)));
            world.report(run, Pages(0));
            world.pass(SECOND);
        }
        let more = world.granted[&run] - before;
        assert_eq!(more, mib(16), "{}", more.bytes());
        // What it gives back counts: it may need as much another time.
        let balloon = world.balloons[&run];
        world.say(run, FromVmm::Want(Pages(0)));
        world.say(run, FromVmm::Return(world.granted[&run] - mib(64)));
        world.report(run, balloon);
        world.say(run, FromVmm::Want(mib(32)));
        world.pass(SECOND * 3);
        assert_eq!(world.granted[&run], mib(64));
    }
}
