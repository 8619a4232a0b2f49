use plimsoll_protocol::control::GuestFacts;

use super::*;

fn overview(world: &mut World) -> Overview {
    match world.answer(Request::Overview) {
        Ok(Answer::Overview(overview)) => *overview,
        other => panic!("{other:?}"),
    }
}

fn sum(vms: &[VmStatus], of: fn(&VmStatus) -> Bytes) -> Bytes {
    vms.iter().map(of).sum()
}

#[test]
fn the_parts_of_an_overview_are_of_one_moment() {
    let mut world = World::new(1024);
    let all = ["a", "b", "c"].map(|vm| world.up(definition(vm, 256, "")));
    for (run, held) in all.into_iter().zip([10, 100, 200]) {
        world.say(run, FromVmm::Want(mib(held)));
        world.report(run, mib(held / 10));
        world.pass(SECOND);
    }
    world.input(Input::Exited(all[1], "signal 9".into()));
    let Overview { host, vms, .. } = overview(&mut world);
    assert_eq!(host.budget, host.granted + host.overhead + host.frames + host.free);
    assert!(host.granted > Bytes::mib(200) && host.overhead > Bytes::ZERO, "{host:?}");
    assert_eq!(sum(&vms, |vm| vm.grant), host.granted);
    assert_eq!(sum(&vms, |vm| vm.overhead), host.overhead);
    assert_eq!(sum(&vms, |vm| vm.held), host.held);
    assert_eq!(sum(&vms, |vm| vm.ballooned), host.ballooned);
    assert_eq!((vms.len(), host.running), (3, 2));
}

#[test]
fn no_claim_of_a_vmm_keeps_metrics_from_being_written() {
    let mut world = World::new(640);
    let evil = world.up(definition("evil", 256, ""));
    let (most, pages, time) = (Bytes(u64::MAX), Pages(u64::MAX), Duration::MAX);
    let guest = GuestFacts {
        total: most,
        free: most,
        available: most,
        cache: most,
        major_faults: u64::MAX,
        ..GuestFacts::default()
    };
    let facts = Facts {
        held: pages,
        ballooned: pages,
        compressed: pages,
        swapped: pages,
        swapped_in: u64::MAX,
        scanned: u64::MAX,
        faults: u64::MAX,
        stall_some: time,
        stall_full: time,
        chunks: plimsoll_protocol::control::Chunks { empty: u64::MAX, large: u64::MAX, small: u64::MAX },
        guest: Some(guest),
        ..Facts::default()
    };
    world.say(evil, FromVmm::Report(facts));
    let text = crate::api::openmetrics(overview(&mut world)).unwrap();
    let samples = text.lines().filter(|line| line.contains("vm=\"evil\""));
    let values: Vec<f64> = samples.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(values.len() > 50 && values.iter().all(|value| value.is_finite() && *value >= 0.0), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_host_tells_where_images_and_disks_lie() {
    let host = World::new(640).host();
    assert_eq!(host.image_directory.as_deref(), Some(std::path::Path::new("/i")));
    assert_eq!(host.disk_directory.as_deref(), Some(std::path::Path::new("/s/disks")));
}
