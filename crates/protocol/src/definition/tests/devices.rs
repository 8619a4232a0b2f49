//! Where a VM boots from, how many devices it may have, and what they are charged.

use super::*;

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
        assert!(more.contains(&format!("at most {disks} are possible with bus = \"{bus}\"")), "{more}");
        let more = error(&text(bus, disks, nets + 1));
        assert!(more.contains(&format!("at most {nets} are possible with bus = \"{bus}\"")), "{more}");
    }
    assert!(error(&text("isa", 0, 0)).contains("expected `mmio` or `pci`"));
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
