use plimsoll_protocol::explain::{Cause, Change, Holder, HostExplanation, Reserved, Sizing, VmExplanation};
use serde_json::{Value, json};

use super::pools::crowd;
use super::*;

impl World {
    fn explain(&mut self, vm: &str) -> VmExplanation {
        match self.answer(Request::ExplainVm(name(vm))) {
            Ok(Answer::Explained(explained)) => explained.finish(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn explain_host(&mut self) -> HostExplanation {
        match self.answer(Request::Explain) {
            Ok(Answer::Explanation(explanation)) => *explanation,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_explanation_is_the_ledgers_to_the_page() {
    let (mut world, _) = crowd();
    world.pass(Duration::from_millis(300));
    let host = world.explain_host();
    assert_eq!(host.host, world.host());
    assert_eq!(host.vms.iter().map(|share| share.vm.grant).sum::<Bytes>(), host.host.granted);
    let entitled: Bytes = host.vms.iter().map(|share| share.vm.entitlement).sum();
    assert_eq!(entitled, host.decision.available, "all want more than there is");
    assert_eq!(host.pools[0].pool.entitled, world.vm("a").entitlement + world.vm("b").entitlement);
    for share in &host.vms {
        let (vm, decision) = (&share.vm, share.decision.as_ref().unwrap());
        assert_eq!(
            (vm.entitlement, vm.target, vm.active),
            (decision.entitlement, decision.target, decision.active)
        );
        assert_eq!(decision.above_target, vm.grant.saturating_sub(vm.target));
        assert_eq!(*vm, world.vm(vm.name.as_str()));
        let one = world.explain(vm.name.as_str());
        let mut whole = one.decision.unwrap();
        whole.withheld_for.clear();
        assert_eq!((&one.vm, Some(&whole), &one.host), (vm, share.decision.as_ref(), &host.host));
        if decision.cause == Cause::Level {
            let page = 4096.0 * 4.0;
            assert!((decision.pays - decision.level).abs() * vm.share_count as f64 <= page, "{decision:?}");
        }
    }
}

#[test]
fn what_set_an_entitlement_is_named() {
    let (mut world, _) = crowd();
    let cause = |world: &mut World, vm: &str| world.explain(vm).decision.unwrap().cause;
    assert_eq!(cause(&mut world, "a"), Cause::Level);
    for (change, named) in [
        (json!({"reservation": "180MiB"}), Cause::Reservation),
        (json!({"reservation": "0", "limit": "100MiB"}), Cause::Limit),
        (json!({"limit": "none", "shares": 200_000_000}), Cause::Size),
    ] {
        world.set("a", change).unwrap();
        assert_eq!(cause(&mut world, "a"), named);
    }
    world.set_pool("prod", json!({"limit": "200MiB"})).unwrap();
    assert_eq!(cause(&mut world, "b"), Cause::PoolLimit("prod".parse().unwrap()));
    world.set_pool("prod", json!({"limit": "none", "shares": 200_000_000})).unwrap();
    assert_eq!(cause(&mut world, "a"), Cause::Size);
    world.set_pool("prod", json!({"reservation": "330MiB", "shares": 1})).unwrap();
    assert_eq!(cause(&mut world, "b"), Cause::PoolReservation("prod".parse().unwrap()));
}

#[test]
fn a_remedy_does_what_it_says() {
    let (mut world, runs) = crowd();
    // From now on nothing but what is set changes.
    for run in runs {
        world.say(run, FromVmm::Want(Pages(0)));
    }
    world.pass(SECOND * 5);
    let explained = world.explain("a");
    let before = explained.decision.unwrap().entitlement;
    assert!(!explained.remedies.is_empty());
    let mut tried = 0;
    for remedy in &explained.remedies {
        assert!(remedy.entitlement > before, "{remedy:?}");
        let (pool, change, undo): (bool, Value, Value) = match &remedy.change {
            Change::Shares(shares) => (false, json!({"shares": shares}), json!({"shares": "normal"})),
            Change::Untaxed => (false, json!({"tax": 0}), json!({"tax": "none"})),
            Change::PoolShares(_, shares) => (true, json!({"shares": shares}), json!({"shares": 2560})),
            _ => continue,
        };
        let mut set = |change| match pool {
            true => world.set_pool("prod", change).unwrap(),
            false => world.set("a", change).unwrap(),
        };
        set(change);
        assert_eq!(world.vm("a").entitlement, remedy.entitlement, "{remedy:?}");
        let mut set = |change| match pool {
            true => world.set_pool("prod", change).unwrap(),
            false => world.set("a", change).unwrap(),
        };
        set(undo);
        assert_eq!(world.vm("a").entitlement, before);
        tried += 1;
    }
    assert!(tried >= 2, "{:?}", explained.remedies);
}

#[test]
fn a_vm_that_takes_no_part_is_explained_as_far_as_it_goes() {
    let mut world = World::new(640);
    let run = world.up(definition("a", 256, "reservation = '32MiB'"));
    assert_eq!(world.explain("a").decision.unwrap().balloon, Sizing::NotNeeded);
    world.input(Input::Exited(run, "signal 9".into()));
    let off = world.explain("a");
    let start = off.start.unwrap();
    assert_eq!((off.decision, start.reservation, start.unreserved), (None, Bytes::mib(32), Bytes::mib(640)));
    assert_eq!(world.explain_host().vms, []);
    assert_eq!(world.answer(Request::ExplainVm(name("b"))).unwrap_err().kind, FailureKind::Unknown);
}

#[test]
fn what_is_withheld_and_for_which_vms_and_pools_is_named() {
    let mut world = World::new(1024);
    world.pool(json!({"name": "prod", "reservation": "300MiB"})).unwrap();
    world.up(definition("db", 256, "pool = 'prod'\nreservation = '100MiB'"));
    world.up(definition("web", 256, "reservation = '200MiB'"));
    let busy = world.up(definition("busy", 1000, ""));
    for _ in 0..60 {
        world.say(busy, FromVmm::Want(mib(16)));
        world.pass(SECOND);
    }
    let (host, decision) = (world.host(), world.explain("busy").decision.unwrap());
    let [db, web] = ["db", "web"].map(|vm| world.vm(vm).grant);
    let reserved = |holder, amount| Reserved { holder, amount };
    // As far as its VMs can use it, a pool's reservation is withheld for it.
    let expected = [
        reserved(Holder::Pool("prod".parse().unwrap()), Bytes::mib(256 - 100)),
        reserved(Holder::Vm(name("web")), Bytes::mib(200) - web),
        reserved(Holder::Vm(name("db")), Bytes::mib(100) - db),
    ];
    assert_eq!(decision.withheld_for, expected);
    assert_eq!(decision.withheld, expected.iter().map(|reserved| reserved.amount).sum::<Bytes>());
    assert!(decision.withheld <= host.free && world.vm("busy").wanted > Bytes::ZERO);
    let minfree = world.explain("busy").host_decision.thresholds.clear;
    assert_eq!(decision.left, minfree, "it has more than it is entitled to");
    // With swap space all of it is lent.
    world.core.run_mut(busy).unwrap().swap = mib(1000);
    assert_eq!(world.explain("busy").decision.unwrap().withheld, Bytes::ZERO);
    assert_eq!(world.explain("busy").decision.unwrap().withheld_for, expected);
}
