use plimsoll_protocol::definition::{MacAddress, Net};

use super::*;
use crate::version::Version;

mod devices;
mod resize;

#[test]
fn a_vm_is_defined_without_being_started() {
    let mut world = World::new(640);
    let vm = definition("a", 256, "");
    assert!(world.answer(Request::Define(Box::new(vm.clone()))).is_ok());
    assert_eq!((world.vm("a").power, world.saved.len(), world.launches.len()), (Power::Off, 1, 0));
    let again = world.answer(Request::Define(Box::new(vm.clone()))).unwrap_err();
    assert!(again.kind == FailureKind::Conflict && again.text.contains("a VM a already"), "{}", again.text);
    let mut nowhere = definition("b", 256, "");
    nowhere.pool = "nowhere".parse().unwrap();
    assert_eq!(world.answer(Request::Define(Box::new(nowhere))).unwrap_err().kind, FailureKind::Invalid);
    let start = world.ask(Request::Start(name("a")));
    assert_eq!((world.launches.len(), world.answers.get(&start)), (1, None));
}

#[test]
fn a_path_that_depends_on_a_directory_is_refused() {
    let mut world = World::new(640);
    for path in ["data.raw", "", "~/data.raw", "./x"] {
        let mut vm = definition("a", 256, "");
        vm.boot = plimsoll_protocol::definition::Boot { initrd: Some(path.into()), ..vm.boot };
        for request in [Request::Define(Box::new(vm.clone())), Request::Create(Box::new(vm))] {
            let refused = world.answer(request).unwrap_err();
            assert_eq!(refused.kind, FailureKind::Invalid);
            assert!(refused.text.contains("write an absolute path"), "{}", refused.text);
        }
    }
    assert_eq!(world.answer(Request::List), Ok(Answer::Vms(Vec::new())));
}

#[test]
fn a_vm_that_is_off_is_defined_anew_as_a_whole() {
    let mut world = World::new(640);
    world.answer(Request::Define(Box::new(definition("a", 256, "")))).unwrap();
    let larger = definition("a", 512, "vcpus = 2");
    assert!(world.answer(Request::Redefine(name("a"), Box::new(larger), None)).is_ok());
    let vm = world.vm("a");
    assert_eq!((vm.size, vm.vcpus, world.saved.len()), (Bytes::mib(512), 2, 2));
    let before = world.vm("a");
    let mut broken = definition("a", 256, "");
    broken.vcpus = 99;
    for (what, kind) in [(broken, FailureKind::Invalid), (definition("b", 256, ""), FailureKind::Invalid)] {
        assert_eq!(world.answer(Request::Redefine(name("a"), Box::new(what), None)).unwrap_err().kind, kind);
    }
    let unknown = world.answer(Request::Redefine(name("b"), Box::new(definition("b", 256, "")), None));
    assert_eq!(unknown.unwrap_err().kind, FailureKind::Unknown);
    assert_eq!((world.vm("a"), world.saved.len()), (before, 2), "nothing has changed");
}

#[test]
fn of_two_that_have_read_the_same_definition_one_replaces_it() {
    let mut world = World::new(640);
    let read = definition("a", 256, "");
    world.answer(Request::Define(Box::new(read.clone()))).unwrap();
    let versions = Some(vec![Version::of(&read)]);
    let mut put = |size| {
        let request = Request::Redefine(name("a"), Box::new(definition("a", size, "")), versions.clone());
        world.answer(request).map_err(|failure| failure.kind)
    };
    assert!(put(512).is_ok());
    assert_eq!(put(128), Err(FailureKind::Outdated));
    assert_eq!(world.vm("a").size, Bytes::mib(512));
    world.answer(Request::Redefine(name("a"), Box::new(read), None)).unwrap();
    assert_eq!(world.vm("a").size, Bytes::mib(256), "without a version it is replaced as it is");
}

#[test]
fn of_a_vm_that_is_on_only_what_may_change_is_defined_anew() {
    let mut world = World::new(640);
    world.up(definition("a", 256, "limit = '200MiB'\ntax = 0.5\n[labels]\nold = 'x'"));
    let text = "reservation = '64MiB'\nautostart = true\n[labels]\nnew = 'y'";
    assert!(world.answer(Request::Redefine(name("a"), Box::new(definition("a", 256, text)), None)).is_ok());
    let vm = world.vm("a");
    assert_eq!((vm.reservation, vm.limit, vm.tax), (Bytes::mib(64), Bytes::mib(256), None));
    assert_eq!((vm.autostart, vm.labels.to_string().as_str()), (true, "new=y"));
    let refused =
        world.answer(Request::Redefine(name("a"), Box::new(definition("a", 512, text)), None)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
    let beyond = definition("a", 256, "reservation = '256MiB'");
    world.up(definition("b", 256, "reservation = '256MiB'"));
    world.up(definition("c", 256, "reservation = '128MiB'"));
    let refused = world.answer(Request::Redefine(name("a"), Box::new(beyond), None)).unwrap_err();
    assert_eq!((refused.kind, world.vm("a").reservation), (FailureKind::NoMemory, Bytes::mib(64)));
}

#[test]
fn a_vm_that_is_renamed_keeps_all_but_its_name() {
    let mut world = World::new(640);
    let net = |mac| Net { mac, ..Net::new("tap0") };
    let own = MacAddress([2, 0, 0, 0, 0, 1]);
    let mut vm = definition("a", 256, "");
    vm.nets = vec![net(None), net(Some(own))];
    let derived = MacAddress::derived(&name("a"), 0);
    world.answer(Request::Define(Box::new(vm))).unwrap();
    assert!(world.answer(Request::Rename(name("a"), name("b"))).is_ok());
    let Ok(Answer::Definition(renamed)) = world.answer(Request::Definition(name("b"))) else { panic!() };
    assert_eq!(renamed.nets, [net(Some(derived)), net(Some(own))], "its guest sees the same interfaces");
    assert_eq!(
        (world.saved[1].definition.name.clone(), world.forgotten.as_slice()),
        (name("b"), &[name("a")][..])
    );
    let kind =
        |world: &mut World, old, new| world.answer(Request::Rename(name(old), name(new))).unwrap_err().kind;
    assert_eq!(kind(&mut world, "a", "c"), FailureKind::Unknown);
    assert_eq!(kind(&mut world, "b", "b"), FailureKind::Conflict);
    world.up(definition("on", 256, ""));
    assert_eq!(kind(&mut world, "b", "on"), FailureKind::Conflict);
    assert_eq!(kind(&mut world, "on", "c"), FailureKind::Conflict);
}
