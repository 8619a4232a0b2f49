//! The ACPI tables: what the kernel is told of hardware that it cannot find by itself.
//!
//! Hardware-reduced ACPI 6: no power management timer, no fixed events, no system control
//! interrupt. Sleep and reset are registers of [`layout::POWER_PORT`], the power button comes
//! through a generic event device. Virtio devices are `LNRO0005`, or functions of the PCI bus that
//! a `PNP0A08` leads to.

use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::{GenericAddress, Sdt};
use acpi_tables::{Aml, aml};
use plimsoll_units::PAGE_SIZE;

use super::layout;
use crate::pci::Ecam;

const OEM: [u8; 6] = *b"PLMSLL";
const TABLE: [u8; 8] = *b"PLIMSOLL";
/// The sleep type that `_S5` names for "off".
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;
/// What is written to the reset register.
pub(crate) const RESET_VALUE: u8 = 1;
/// The event device's bit for the power button.
pub(crate) const EVENT_POWER_BUTTON: u8 = 1;

/// Where guests find their virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VirtioBus {
    /// So many are in windows of their own.
    Mmio(u32),
    /// On a PCI bus.
    Pci,
}

/// All tables as they are in guest memory from [`layout::ACPI`] on.
pub(crate) fn tables(vcpus: u8, bus: VirtioBus) -> Vec<u8> {
    let mut blob = vec![0; 64];
    let mut place = |table: &dyn Aml| {
        let address = layout::ACPI + blob.len() as u64;
        table.to_aml_bytes(&mut blob);
        blob.resize(blob.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = place(&dsdt(bus));
    let fadt = place(&fadt(dsdt, bus));
    let madt = place(&madt(vcpus));
    let mcfg = (bus == VirtioBus::Pci).then(|| place(&mcfg()));
    let mut xsdt = Sdt::new(*b"XSDT", 36, 1, OEM, TABLE, 1);
    xsdt.append_slice(&fadt.to_le_bytes());
    xsdt.append_slice(&madt.to_le_bytes());
    mcfg.into_iter().for_each(|mcfg| xsdt.append_slice(&mcfg.to_le_bytes()));
    let xsdt = place(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    blob[..rsdp.len()].copy_from_slice(&rsdp);
    debug_assert!(blob.len() as u64 <= layout::ACPI_SIZE);
    blob
}

/// Fixed facts (ACPI 6.4, section 5.2.9).
fn fadt(dsdt: u64, bus: VirtioBus) -> Sdt {
    const WBINVD: u32 = 1 << 0;
    const POWER_BUTTON_IS_A_DEVICE: u32 = 1 << 4;
    const SLEEP_BUTTON_IS_A_DEVICE: u32 = 1 << 5;
    const RESET_REGISTER: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    /// No VGA, no PCIe ASPM, no CMOS clock; and neither legacy devices nor a keyboard controller.
    const ARCHITECTURE: u16 = 1 << 2 | 1 << 4 | 1 << 5;
    const NO_MESSAGES: u16 = 1 << 3;
    let mut fadt = Sdt::new(*b"FACP", 276, 6, OEM, TABLE, 1);
    let messages = if bus == VirtioBus::Pci { 0 } else { NO_MESSAGES };
    fadt.write_u16(109, ARCHITECTURE | messages);
    let flags =
        WBINVD | POWER_BUTTON_IS_A_DEVICE | SLEEP_BUTTON_IS_A_DEVICE | RESET_REGISTER | HARDWARE_REDUCED;
    fadt.write_u32(112, flags);
    fadt.write(116, GenericAddress::io_port_address::<u8>(layout::RESET_PORT));
    fadt.write_u8(128, RESET_VALUE);
    fadt.write_u8(131, 4);
    fadt.write_u64(140, dsdt);
    fadt.write(244, GenericAddress::io_port_address::<u8>(layout::SLEEP_CONTROL_PORT));
    fadt.write(256, GenericAddress::io_port_address::<u8>(layout::SLEEP_STATUS_PORT));
    fadt.write_bytes(268, b"PLIMSOLL");
    fadt
}

/// Interrupt controllers (section 5.2.12): a local APIC per vCPU, one I/O APIC.
fn madt(vcpus: u8) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", 44, 5, OEM, TABLE, 1);
    madt.write_u32(36, layout::LOCAL_APIC);
    for cpu in 0..vcpus {
        madt.append_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    let mut io_apic = [1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    io_apic[4..8].copy_from_slice(&layout::IO_APIC.to_le_bytes());
    madt.append_slice(&io_apic);
    madt
}

/// Where PCI's configuration space is (PCI Firmware 3.2, section 4.1.2): bus 0 of segment 0.
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, TABLE, 1);
    mcfg.add_ecam(layout::PCI_ECAM, 0, 0, 0);
    mcfg
}

/// Devices (section 5.2.11.1).
fn dsdt(bus: VirtioBus) -> Sdt {
    let mut code = Vec::new();
    let (off, zero) = (SLEEP_TYPE_OFF, 0u8);
    aml::Name::new("_S5_".into(), &aml::Package::new(vec![&off, &zero, &zero, &zero]))
        .to_aml_bytes(&mut code);
    serial_port(&mut code);
    power_button(&mut code);
    panic_device(&mut code);
    match bus {
        VirtioBus::Mmio(devices) => (0..devices).for_each(|index| virtio_device(index, &mut code)),
        VirtioBus::Pci => pci_bus(&mut code),
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, 1);
    dsdt.append_slice(&code);
    dsdt
}

/// An edge-triggered line: what an irqfd is.
fn line(gsi: u32) -> aml::Interrupt {
    aml::Interrupt::new(true, true, false, false, gsi)
}

fn serial_port(code: &mut Vec<u8>) {
    aml::Device::new(
        "_SB_.COM1".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501")),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &aml::IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8),
                    &line(layout::SERIAL_GSI),
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// The power button, and the event device that reports it (section 5.6.9).
fn power_button(code: &mut Vec<u8>) {
    aml::Device::new(
        "_SB_.PWRB".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0C0C")),
            &aml::Name::new("_UID".into(), &aml::ZERO),
        ],
    )
    .to_aml_bytes(code);
    let (button, pressed) = (EVENT_POWER_BUTTON, 0x80u8);
    aml::Device::new(
        "_SB_.GED_".into(),
        vec![
            &aml::Name::new("_HID".into(), &"ACPI0013"),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new("_CRS".into(), &aml::ResourceTemplate::new(vec![&line(layout::EVENT_GSI)])),
            &aml::OpRegion::new("EREG".into(), aml::OpRegionSpace::SystemIO, &layout::EVENT_PORT, &aml::ONE),
            &aml::Field::new(
                "EREG".into(),
                aml::FieldAccessType::Byte,
                aml::FieldLockRule::NoLock,
                aml::FieldUpdateRule::WriteAsZeroes,
                vec![aml::FieldEntry::Named(*b"EVNT", 8)],
            ),
            &aml::Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    &aml::Store::new(&aml::Local(0), &aml::Path::new("EVNT")),
                    &aml::And::new(&aml::Local(1), &aml::Local(0), &button),
                    &aml::If::new(
                        &aml::Equal::new(&aml::Local(1), &button),
                        vec![&aml::Notify::new(&aml::Path::new("\\_SB_.PWRB"), &pressed)],
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// pvpanic as QEMU has it: stock kernels have a driver (`pvpanic-mmio`).
fn panic_device(code: &mut Vec<u8>) {
    aml::Device::new(
        "_SB_.PEVT".into(),
        vec![
            &aml::Name::new("_HID".into(), &"QEMU0001"),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![&aml::IO::new(
                    layout::PANIC_PORT,
                    layout::PANIC_PORT,
                    1,
                    1,
                )]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

fn virtio_device(index: u32, code: &mut Vec<u8>) {
    let base = layout::virtio_window(index);
    #[expect(clippy::cast_possible_truncation, reason = "the windows are below 4 GiB, see the layout")]
    let (base, len) = (base as u32, PAGE_SIZE as u32);
    aml::Device::new(
        format!("_SB_.V{index:03}").as_str().into(),
        vec![
            &aml::Name::new("_HID".into(), &"LNRO0005"),
            &aml::Name::new("_UID".into(), &index),
            // Devices see what the CPU's caches hold.
            &aml::Name::new("_CCA".into(), &aml::ONE),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &aml::Memory32Fixed::new(true, base, len),
                    &line(layout::virtio_gsi(index)),
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

/// The host bridge with its windows, and the board that says that configuration space is taken:
/// Linux believes the MCFG only then. There are no interrupt pins, so no table of them.
fn pci_bus(code: &mut Vec<u8>) {
    let window = layout::PCI_WINDOW;
    #[expect(clippy::cast_possible_truncation, reason = "all below 4 GiB, see the layout")]
    let (first, last, ecam) = (window.start as u32, (window.end - 1) as u32, layout::PCI_ECAM as u32);
    #[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
    let ecam_length = Ecam::LENGTH as u32;
    let configuration = aml::IO::new(layout::PCI_PORT, layout::PCI_PORT, 1, 8);
    let memory =
        aml::AddressSpace::new_memory(aml::AddressSpaceCacheable::NotCacheable, true, first, last, None);
    aml::Device::new(
        "_SB_.PCI0".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0A08")),
            &aml::Name::new("_CID".into(), &aml::EISAName::new("PNP0A03")),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new("_SEG".into(), &aml::ZERO),
            &aml::Name::new("_BBN".into(), &aml::ZERO),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &aml::AddressSpace::new_bus_number(0u16, 0u16),
                    &configuration,
                    &memory,
                ]),
            ),
        ],
    )
    .to_aml_bytes(code);
    aml::Device::new(
        "_SB_.MBRD".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0C02")),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![&aml::Memory32Fixed::new(true, ecam, ecam_length)]),
            ),
        ],
    )
    .to_aml_bytes(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

    fn at(blob: &[u8], address: u64) -> &[u8] {
        let offset = usize::try_from(address - layout::ACPI).unwrap();
        let len = u32::from_le_bytes(blob[offset + 4..offset + 8].try_into().unwrap());
        &blob[offset..offset + len as usize]
    }

    /// The tables that the root leads to, and the DSDT behind the first of them. All add up to
    /// zero.
    fn reached(blob: &[u8]) -> (Vec<&[u8]>, &[u8]) {
        assert!(blob.len() as u64 <= layout::ACPI_SIZE);
        assert_eq!(&blob[..8], b"RSD PTR ");
        assert_eq!((sum(&blob[..20]), sum(&blob[..36])), (0, 0));
        let xsdt = at(blob, u64::from_le_bytes(blob[24..32].try_into().unwrap()));
        assert_eq!((&xsdt[..4], sum(xsdt)), (&b"XSDT"[..], 0));
        let entries: Vec<&[u8]> =
            xsdt[36..].chunks(8).map(|e| at(blob, u64::from_le_bytes(e.try_into().unwrap()))).collect();
        let dsdt = at(blob, u64::from_le_bytes(entries[0][140..148].try_into().unwrap()));
        assert_eq!(&dsdt[..4], b"DSDT");
        for table in entries.iter().chain([&dsdt]) {
            assert_eq!(sum(table), 0);
        }
        (entries, dsdt)
    }

    fn names<'a>(entries: &[&'a [u8]]) -> Vec<&'a [u8]> {
        entries.iter().map(|t| &t[..4]).collect()
    }

    fn holds(table: &[u8], bytes: &[u8]) -> bool {
        table.windows(bytes.len()).any(|window| window == bytes)
    }

    #[test]
    fn every_table_is_reached_from_the_root_and_adds_up_to_zero() {
        let blob = tables(8, VirtioBus::Mmio(layout::MAX_VIRTIO));
        let (entries, dsdt) = reached(&blob);
        assert_eq!(names(&entries), [b"FACP", b"APIC"]);
        assert_eq!(entries[1].len(), 44 + 8 * 8 + 12);
        assert!(holds(dsdt, b"LNRO0005") && !holds(dsdt, b"PCI0"));
        assert_eq!(entries[0][109], 0b11_1100, "no messages");
    }

    #[test]
    fn pci_has_its_configuration_space_and_its_windows() {
        let blob = tables(8, VirtioBus::Pci);
        let (entries, dsdt) = reached(&blob);
        assert_eq!(names(&entries), [b"FACP", b"APIC", b"MCFG"]);
        assert_eq!(entries[0][109], 0b11_0100, "messages");
        let ecam = &entries[2][44..];
        assert_eq!((ecam.len(), &ecam[..8]), (16, &layout::PCI_ECAM.to_le_bytes()[..]));
        assert_eq!(ecam[8..], [0; 8], "bus 0 of segment 0");
        assert!(holds(dsdt, b"PCI0") && holds(dsdt, b"MBRD") && !holds(dsdt, b"LNRO0005"));
        // A memory window by its minimum, maximum, translation and length (ACPI 6.4, 6.4.3.5.2).
        let window: Vec<u8> =
            [0xd000_0000u32, 0xdfff_ffff, 0, 0x1000_0000].into_iter().flat_map(u32::to_le_bytes).collect();
        assert!(holds(dsdt, &window));
    }
}
