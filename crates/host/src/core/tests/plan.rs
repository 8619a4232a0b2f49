//! The same host in the daemon and on paper.

use plimsoll_sim::{Scenario, simulate};
use serde_json::json;

use super::*;

/// Returns what a VM of 1000 MiB without swap space holds on paper, on a host of 1 GiB of which a
/// pool has reserved 512 MiB.
fn planned() -> Pages {
    let scenario = "
        duration = '120s'
        [host]
        memory = '1GiB'
        [[pool]]
        name = 'prod'
        reservation = '512MiB'
        [[vm]]
        name = 'idle'
        size = '512MiB'
        pool = 'prod'
        demand = { points = [{ active = '8MiB' }] }
        [[vm]]
        name = 'busy'
        size = '1000MiB'
        demand = { points = [{ active = '900MiB' }] }
    ";
    let scenario = Scenario::from_toml(scenario, &|_| Err("no file".into())).unwrap();
    simulate(&scenario).frames.last().unwrap().vms[1].held
}

#[test]
fn a_vm_gets_on_paper_what_the_daemon_gives_it_beside_a_pools_reservation() {
    let mut world = World::new(1024);
    world.core.settings.rules.largest_store = 0;
    world.pool(json!({"name": "prod", "reservation": "512MiB"})).unwrap();
    let idle = world.up(definition("idle", 512, "pool = 'prod'"));
    world.say(idle, FromVmm::Return(world.granted[&idle] - mib(8)));
    let busy = world.up(definition("busy", 1000, ""));
    for _ in 0..120 {
        world.say(busy, FromVmm::Want(mib(900).saturating_sub(world.granted[&busy])));
        world.report(idle, Pages(0));
        world.report(busy, Pages(0));
        world.pass(SECOND);
    }
    let (granted, planned) = (world.granted[&busy], planned());
    let apart = granted.0.abs_diff(planned.0);
    assert!(apart < planned.0 / 50, "{} granted, {} planned", granted.bytes(), planned.bytes());
    assert!(granted > mib(400) && granted < mib(512), "{}", granted.bytes());
}
