//! Devices that change while their VM is on, and while it is off.

use plimsoll_protocol::LinkState;
use plimsoll_protocol::control::{DeviceOrder, NetSettings, RateLimit};

use super::*;

const DEVICES: &str = "
[[disk]]
path = '/a'
[[disk]]
path = '/b'
bandwidth = '50MiB'
[[net]]
tap = 'tap0'
packets = 1000
";

fn with_devices() -> VmDefinition {
    let text = format!("name = 'a'\nsize = '256MiB'\n[boot]\nmodel = true\n{DEVICES}");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

fn change(json: &str) -> Request {
    Request::Change(name("a"), serde_json::from_str(json).unwrap())
}

fn limit(operations: Option<u64>, bandwidth: Option<u64>) -> RateLimit {
    RateLimit { operations, bandwidth: bandwidth.map(Bytes::mib), ..RateLimit::default() }
}

#[test]
fn a_vmm_is_told_of_the_devices_that_change_and_of_no_others() {
    let mut world = World::new(640);
    let run = world.up(with_devices());
    let both = r#"{"disk": {"vdb": {"iops": 500, "burst": "2s"}}, "net": {"tap0": NET}}"#;
    let net = r#"{"packets": "none", "link": "down", "mac_filter": true}"#;
    let both = &both.replace("NET", net);
    let Ok(Answer::Vm(vm)) = world.answer(change(both)) else { panic!() };
    assert_eq!((vm.disks[1].iops, vm.nets[0].packets), (Some(500), None));
    let burst = "2s".parse().unwrap();
    let rate = RateLimit { burst, ..limit(Some(500), Some(50)) };
    let disk = ToVmm::Device(DeviceOrder::DiskRate { disk: 1, rate });
    let settings = NetSettings { link: LinkState::Down, mac_filter: true, ..NetSettings::default() };
    let net = ToVmm::Device(DeviceOrder::Net { net: 0, settings });
    assert_eq!(std::mem::take(&mut world.told), [(run, disk), (run, net)]);
    let saved = &world.saved.last().unwrap().definition;
    assert_eq!((saved.disks[1].iops, saved.disks[1].burst), (Some(500), Some(burst)));
    let facts = world.core.run(run).unwrap().facts;
    world.say(run, FromVmm::Report(Facts { filtered: [7, 0, 0, 0, 0, 0, 0, 0], ..facts }));
    let net = world.vm("a").nets.remove(0);
    assert_eq!((net.link, net.mac_filter, net.filtered), (LinkState::Down, true, 7));
    // The same again changes nothing.
    world.answer(change(both)).unwrap();
    world.answer(change(r#"{"shares": "high"}"#)).unwrap();
    assert!(world.told.is_empty(), "{:?}", world.told);
}

#[test]
fn a_definition_that_is_replaced_while_its_vm_is_on_changes_its_devices() {
    let mut world = World::new(640);
    let run = world.up(with_devices());
    let mut faster = with_devices();
    faster.disks[0].iops = Some(5000);
    world.answer(Request::Redefine(name("a"), Box::new(faster.clone()), None)).unwrap();
    let rate = limit(Some(5000), None);
    assert_eq!(world.told, [(run, ToVmm::Device(DeviceOrder::DiskRate { disk: 0, rate }))]);
    faster.disks[0].path = "/c".into();
    let refused = world.answer(Request::Redefine(name("a"), Box::new(faster), None)).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Conflict);
}

#[test]
fn what_cannot_be_changed_is_refused_and_nothing_has_changed() {
    let mut world = World::new(640);
    world.up(with_devices());
    for (json, what) in [
        (r#"{"disk": {"vdc": {"iops": 500}}, "shares": "high"}"#, "there is no disk vdc"),
        (r#"{"disk": {"vda": {"iops": 5}}}"#, "iops 5: at least 10"),
        (r#"{"net": {"tap0": {"bandwidth": 1}}}"#, "bandwidth 1B: at least 64KiB"),
        (r#"{"net": {"tap1": {"packets": 500}}}"#, "there is no interface with tap tap1"),
    ] {
        let refused = world.answer(change(json)).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Invalid, "{json}");
        assert!(refused.text.contains(what), "{}", refused.text);
    }
    assert!(world.told.is_empty(), "{:?}", world.told);
    let Ok(Answer::Definition(definition)) = world.answer(Request::Definition(name("a"))) else { panic!() };
    assert_eq!(*definition, with_devices());
}

#[test]
fn a_vm_that_is_off_has_its_rates_when_it_starts() {
    let mut world = World::new(640);
    world.answer(Request::Define(Box::new(with_devices()))).unwrap();
    let Ok(Answer::Vm(vm)) = world.answer(change(r#"{"disk": {"vda": {"iops": 500}}}"#)) else { panic!() };
    assert_eq!(vm.disks[0].iops, Some(500));
    assert!(world.told.is_empty(), "{:?}", world.told);
}

#[test]
fn a_restarted_daemon_tells_a_vmm_again_what_holds() {
    let mut world = World::new(640);
    let facts = Facts { grant: mib(64), held: mib(64), ram: (4096, Bytes::mib(256)), ..Facts::default() };
    let run = world.adopt(Adopted {
        definition: with_devices(),
        started: Timestamp::UNIX_EPOCH,
        pid: 9,
        missing_jail: vec![],
        remarks: vec![],
        facts,
        recorded: Some(mib(64)),
        swap: Pages(0),
        kernel: KernelAccount::default(),
        domains: vec![],
        former: vec![],
        references: None,
    });
    let disks = [(0, limit(None, None)), (1, limit(None, Some(50)))];
    let disks = disks.map(|(disk, rate)| (run, ToVmm::Device(DeviceOrder::DiskRate { disk, rate })));
    let settings = NetSettings { rate: limit(Some(1000), None), ..NetSettings::default() };
    let net = (run, ToVmm::Device(DeviceOrder::Net { net: 0, settings }));
    let expected: Vec<_> = disks.into_iter().chain([net]).collect();
    assert_eq!(world.told, expected);
}
