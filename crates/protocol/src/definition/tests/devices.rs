//! Where a VM boots from, how many devices it may have, their rates, and what they are charged.

use super::*;
use crate::Burst;

#[test]
fn a_vm_that_boots_from_its_disk_reads_back_as_it_was_given() {
    for format in ["", "format = 'qcow2'\n"] {
        let text = format!("{DISK}append = 'console=ttyS0'\n[[disk]]\npath = '/d/x'\n{format}");
        let vm = from(&text);
        assert_eq!((vm.boot.from, vm.boot.append.as_deref()), (Some(BootFrom::Disk), Some("console=ttyS0")));
        let written = vm.to_toml().unwrap();
        assert!(written.contains("[boot]\nfrom = \"disk\"\nappend = \"console=ttyS0\"\n"), "{written}");
        assert_eq!(from(&written), vm);
        let made = VmDefinition::new(vm.name.clone(), vm.size, Boot::from_disk("console=ttyS0"));
        assert_eq!(VmDefinition { disks: vm.disks.clone(), ..made }, vm);
    }
}

#[test]
fn a_bus_has_room_for_so_many_disks_and_interfaces() {
    let text = |bus: &str, disks: usize, nets: usize| {
        let (disk, net) = ("[[disk]]\npath = 'd'\n", "[[net]]\ntap = 't'\n");
        format!("bus = '{bus}'\n{GOOD}{}{}", disk.repeat(disks), net.repeat(nets))
    };
    assert_eq!(from(GOOD).bus, Bus::Mmio);
    for (bus, disks, nets) in [("mmio", 8, 4), ("pci", 32, 8)] {
        let vm = from(&text(bus, disks, nets));
        assert_eq!((vm.bus.to_string(), vm.devices()), (bus.to_owned(), disks + nets));
        let more = error(&text(bus, disks + 1, nets));
        assert!(more.contains(&format!("at most {disks} are allowed with bus = \"{bus}\"")), "{more}");
        let more = error(&text(bus, disks, nets + 1));
        assert!(more.contains(&format!("at most {nets} are allowed with bus = \"{bus}\"")), "{more}");
    }
    assert!(error(&text("isa", 0, 0)).contains("expected `mmio` or `pci`"));
}

#[test]
fn a_seed_is_charged_and_its_files_are_taken_from_the_definitions_directory() {
    let vm = from(&format!("{GOOD}[cloud_init]\nuser_data = 'u'\nnetwork_config = '/n'\n"));
    assert_eq!(vm.overhead().bytes(), Bytes(from(GOOD).overhead().bytes().0 + (512 << 10)));
    let seed = vm.cloud_init.clone().unwrap();
    assert_eq!((seed.user_data, seed.network_config), (Some("/d/u".into()), Some("/n".into())));
    vm.check_paths().unwrap();
    let mut relative = vm;
    relative.cloud_init.as_mut().unwrap().meta_data = Some("m".into());
    assert!(relative.check_paths().unwrap_err().to_string().starts_with("cloud_init.meta_data"));
}

#[test]
fn an_image_is_charged() {
    let text = format!("{GOOD}[[disk]]\npath = 'd'\nformat = 'qcow2'\n");
    assert_eq!(from(&text).overhead().bytes(), Bytes(from(GOOD).overhead().bytes().0 + (2 << 20)));
}

#[test]
fn connections_to_the_guest_are_charged() {
    let charged = |text: &str| {
        let bytes = |text: &str| from(&format!("{GOOD}{text}")).overhead().bytes();
        bytes(text).saturating_sub(bytes(""))
    };
    assert_eq!(charged("[vsock]\n"), Bytes(64 * CONNECTION_OVERHEAD.0));
    assert_eq!(charged("[vsock]\nconnections = 1024\n"), Bytes::mib(72));
    let pci = from(&format!("bus = 'pci'\n{GOOD}[vsock]\n{}", "[[disk]]\npath = 'd'\n".repeat(32)));
    assert_eq!(pci.devices(), 33);
    let disks = "[[disk]]\npath = 'd'\n".repeat(7);
    let error = error(&format!("{GOOD}[vsock]\nagent = true\n{disks}"));
    assert!(error.contains("8 disks") && error.contains("with that of its agent"), "{error}");
}

const DEVICES: &str = "[[disk]]\npath = '/d/x'\niops = 500\n[[disk]]\npath = '/d/y'\n[[net]]\ntap = 't'\n";

#[test]
fn rates_of_devices_change_one_by_one_and_no_other_key_does() {
    let vm = from(&format!("{GOOD}{DEVICES}"));
    let change = r#"{
        "disk": {"vda": {"iops": "none", "bandwidth": "50MiB"}, "vdb": {"burst": "2s", "iops": 100}},
        "net": {"t": {"packets": 1000, "bandwidth": 1048576}}
    }"#;
    let change: VmChange = serde_json::from_str(change).unwrap();
    vm.check_devices(&change).unwrap();
    let changed = vm.changed(&change);
    assert_eq!((changed.disks[0].iops, changed.disks[0].bandwidth), (None, Some(Bytes::mib(50))));
    let burst: Burst = "2s".parse().unwrap();
    assert_eq!((changed.disks[1].iops, changed.disks[1].burst), (Some(100), Some(burst)));
    assert_eq!((changed.nets[0].packets, changed.nets[0].bandwidth), (Some(1000), Some(Bytes::mib(1))));
    assert_eq!(from(&changed.to_toml().unwrap()), changed);
    // The change that an editor's new definition stands for, both ways.
    for (before, after) in [(&vm, &changed), (&changed, &vm)] {
        assert_eq!(&before.changed(&before.change_to(after).unwrap()), after);
    }
    let mut moved = changed.clone();
    moved.disks[1].path = "/elsewhere".into();
    assert_eq!(vm.change_to(&moved), None, "a disk is not replaced by a change");
    moved.disks.pop();
    assert_eq!(vm.change_to(&moved), None, "nor taken out");
}

#[test]
fn a_change_of_a_device_that_the_vm_lacks_names_those_that_it_has() {
    let vm = from(&format!("{GOOD}{DEVICES}"));
    for (change, what) in [
        (r#"{"disk": {"vdc": {"iops": 100}}}"#, "there is no disk vdc: the VM has vda, vdb"),
        (r#"{"net": {"u": {"packets": 100}}}"#, "there is no interface with tap u: the VM has t"),
    ] {
        let change = serde_json::from_str(change).unwrap();
        assert_eq!(vm.check_devices(&change).unwrap_err().to_string(), what);
    }
    let change = serde_json::from_str(r#"{"disk": {"vda": {}}}"#).unwrap();
    assert_eq!(
        from(GOOD).check_devices(&change).unwrap_err().to_string(),
        "there is no disk vda: the VM has none"
    );
    for bad in [r#"{"disk": {"sda": {}}}"#, r#"{"disk": {"vda": {"path": "/"}}}"#] {
        assert!(serde_json::from_str::<VmChange>(bad).is_err(), "{bad}");
    }
}

#[test]
fn rates_have_bounds() {
    for (keys, what) in [
        ("[[net]]\ntap = 't'\npackets = 99\n", "net t: packets 99: at least 100"),
        ("[[net]]\ntap = 't'\nbandwidth = '63KiB'\n", "net t: bandwidth 63KiB: at least 64KiB"),
        ("[[disk]]\npath = 'd'\nburst = '61s'\n", "burst \"61s\": write a time from 100ms to 60s"),
    ] {
        let error = error(&format!("{GOOD}{keys}"));
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn guests_tell_disks_apart_by_serial_numbers() {
    let text = |serials: [&str; 2]| {
        let disk = |serial: &str| format!("[[disk]]\npath = 'd'\n{serial}\n");
        format!("{GOOD}{}{}", disk(serials[0]), disk(serials[1]))
    };
    let vm = from(&text(["", "serial = 'web1-root.0_a'"]));
    let serials: Vec<String> = vm.disks.iter().enumerate().map(|(index, disk)| disk.serial(index)).collect();
    assert_eq!(serials, ["plimsoll-disk0", "web1-root.0_a"]);
    assert_eq!(from(&vm.to_toml().unwrap()), vm);
    for (serials, what) in [
        (["serial = ''", ""], "serial \"\": must be 1 to 20 of"),
        (["serial = '012345678901234567890'", ""], "serial \"012345678901234567890\": must be 1 to 20"),
        (["serial = 'a b'", ""], "serial \"a b\""),
        (["serial = 'a'", "serial = 'a'"], "serial \"a\": two disks have it"),
        (["serial = 'plimsoll-disk1'", ""], "two disks have it"),
        (["serial = 'plimsoll-disk2'", "[cloud_init]"], "two disks have it"),
        (["serial = 'plimsoll-agent'", "[vsock]\nagent = true"], "two disks have it"),
    ] {
        let error = error(&text(serials));
        assert!(error.contains(what), "{error}");
    }
}
