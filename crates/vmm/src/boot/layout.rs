//! Where everything is in the guest's physical address space, from the bottom up.
//!
//! ```text
//! 0x0000_0500   GDT and an empty IDT
//! 0x0000_7000   zero page (boot_params)
//! 0x0000_9000   page tables for the first 4 GiB, 6 pages
//! 0x0002_0000   kernel command line
//! 0x0009_fc00   end of conventional memory
//! 0x000a_0000   nothing (video memory on a PC); RAM behind it is never touched
//! 0x000e_0000   ACPI tables, 128 KiB
//! 0x0010_0000   RAM; the kernel where it wants to be, the initrd as high as it may
//! 0xc000_0000   end of low RAM at most
//! 0xd000_0000   virtio windows, one page each, or on PCI the functions' BARs
//! 0xe000_0000   PCI configuration space, 1 MiB
//! 0xfec0_0000   I/O APIC
//! 0xfee0_0000   local APICs
//! 0xfffb_c000   KVM's identity map and TSS
//! 0x1_0000_0000 high RAM
//! ```
//!
//! Ports: 0x20..0xa1 and 0x40..0x61 KVM's PIC and PIT, 0x64 reset as a keyboard controller does it,
//! 0x3f8 the serial port, 0x505 pvpanic, 0x600 sleep and reset, 0x604 the event device, 0xcf8 PCI
//! configuration space.

use std::ops::Range;

use plimsoll_pmap::PpnRange;
use plimsoll_protocol::definition::Bus;
use plimsoll_units::{CHUNK_SIZE, PAGE_SIZE, Pages, Ppn};

/// A page's length, as an index into bytes.
pub(crate) const PAGE: usize = 4096;
/// The global descriptor table, and after it an interrupt descriptor table of no length.
pub(crate) const GDT: u64 = 0x500;
/// The empty interrupt descriptor table.
pub(crate) const IDT: u64 = 0x540;
/// The zero page.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// Stack of the boot vCPU until the kernel makes its own: it grows down towards the GDT.
pub(crate) const BOOT_STACK: u64 = ZERO_PAGE - 16;
/// Page map level 4; then one page of the next level and four of the last.
pub(crate) const PML4: u64 = 0x9000;
/// The one page of page directory pointers.
pub(crate) const PDPT: u64 = PML4 + PAGE_SIZE;
/// Four pages of page directories: 4 GiB in pages of 2 MiB, which reaches all that the kernel's
/// entry code may touch.
pub(crate) const PAGE_DIRECTORIES: u64 = PDPT + PAGE_SIZE;
/// The command line, with its terminating zero.
pub(crate) const CMDLINE: u64 = 0x2_0000;
/// End of what the memory map calls RAM below 1 MiB: the last KiB belongs to a PC's firmware.
pub(crate) const CONVENTIONAL_END: u64 = 0x9_fc00;
/// ACPI tables, the RSDP first: kernels that are not told search it here.
pub(crate) const ACPI: u64 = 0xe_0000;
/// Room for the tables: 8 CPUs and 14 devices take some 4 KiB.
pub(crate) const ACPI_SIZE: u64 = HIMEM - ACPI;
/// Where RAM goes on above a PC's legacy area.
pub(crate) const HIMEM: u64 = 0x10_0000;

/// End of low RAM at most, and begin of the hole for devices.
pub(crate) const HOLE: u64 = 0xc000_0000;
/// The first virtio window.
pub(crate) const VIRTIO: u64 = 0xd000_0000;
/// Where the BARs of PCI functions may be.
pub(crate) const PCI_WINDOW: Range<u64> = 0xd000_0000..0xe000_0000;
/// The configuration space of PCI's bus 0.
pub(crate) const PCI_ECAM: u64 = 0xe000_0000;
/// The I/O APIC's registers.
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
/// Every local APIC's registers.
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// A page for KVM's real-mode emulation on Intel processors.
pub(crate) const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for the same.
pub(crate) const TSS: u64 = IDENTITY_MAP + PAGE_SIZE;
/// Where RAM goes on above the hole.
pub(crate) const HIGH: u64 = 1 << 32;

/// Interrupt line of the serial port, as on a PC.
pub(crate) const SERIAL_GSI: u32 = 4;
/// Interrupt line of the event device (power button).
pub(crate) const EVENT_GSI: u32 = 5;
/// The first virtio device's line; the I/O APIC has 24. Lines below are a PC's: 0 timer, 1
/// keyboard, 2 cascade, 8 clock, 9 ACPI.
pub(crate) const VIRTIO_GSI: u32 = 10;
/// Lines of the I/O APIC. The numbers from here on are messages of PCI functions.
pub(crate) const GSIS: u32 = 24;
/// Virtio devices at most.
pub(crate) const MAX_VIRTIO: u32 = GSIS - VIRTIO_GSI;

/// The serial port.
pub(crate) const SERIAL_PORT: u16 = 0x3f8;
/// A PC's keyboard controller, of which only the reset line is there.
pub(crate) const KEYBOARD_PORT: u16 = 0x64;
/// pvpanic, where QEMU has it.
pub(crate) const PANIC_PORT: u16 = 0x505;
/// The power registers, a byte each: sleep control, sleep status, reset.
pub(crate) const POWER_PORT: u16 = 0x600;
/// Where the kernel says that it sleeps (ACPI 6.4, section 4.8.3.7).
pub(crate) const SLEEP_CONTROL_PORT: u16 = POWER_PORT;
/// Where the kernel would see that it has woken.
pub(crate) const SLEEP_STATUS_PORT: u16 = POWER_PORT + 1;
/// Where the kernel resets the machine.
pub(crate) const RESET_PORT: u16 = POWER_PORT + 2;
/// The event device's register of pending events, a byte.
pub(crate) const EVENT_PORT: u16 = 0x604;
/// The two ports, of four bytes each, that lead to PCI configuration space.
pub(crate) const PCI_PORT: u16 = 0xcf8;

const _: () = {
    assert!(PAGE as u64 == PAGE_SIZE);
    assert!(IDT + 8 <= BOOT_STACK - 0x1000);
    assert!(ZERO_PAGE + PAGE_SIZE <= PML4);
    assert!(PAGE_DIRECTORIES + 4 * PAGE_SIZE <= CMDLINE);
    assert!(CMDLINE + 0x1_0000 <= CONVENTIONAL_END);
    assert!(VIRTIO >= HOLE);
    assert!(VIRTIO + MAX_VIRTIO as u64 * PAGE_SIZE <= IO_APIC as u64);
    assert!(TSS + 3 * PAGE_SIZE <= HIGH);
    assert!(HOLE.is_multiple_of(CHUNK_SIZE) && HIGH.is_multiple_of(CHUNK_SIZE));
    assert!(PCI_WINDOW.start >= HOLE && PCI_WINDOW.end <= PCI_ECAM);
    assert!(PCI_ECAM + 0x10_0000 <= IO_APIC as u64);
    // All disks, all nets, entropy and balloon; and the same with vsock.
    assert!(Bus::Mmio.max_disks(false) + Bus::Mmio.max_nets() + 2 <= MAX_VIRTIO as usize);
    assert!(Bus::Mmio.max_disks(true) + Bus::Mmio.max_nets() + 3 <= MAX_VIRTIO as usize);
};

/// The address of virtio device `index`, which is below [`MAX_VIRTIO`].
pub(crate) fn virtio_window(index: u32) -> u64 {
    VIRTIO + u64::from(index) * PAGE_SIZE
}

/// The interrupt line of virtio device `index`, which is below [`MAX_VIRTIO`].
pub(crate) fn virtio_gsi(index: u32) -> u32 {
    VIRTIO_GSI + index
}

/// The regions of a guest's RAM: below the hole, and the rest above 4 GiB.
pub(crate) fn ram(size: Pages) -> Vec<PpnRange> {
    let low = Pages(size.0.min(HOLE / PAGE_SIZE));
    let mut regions = vec![PpnRange::new(Ppn(0), low)];
    let high = size.saturating_sub(low);
    if high > Pages::ZERO {
        regions.push(PpnRange::new(Ppn::of_address(HIGH), high));
    }
    regions
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    #[test]
    fn ram_leaves_the_hole_free() {
        let pages = |gib: u64| Pages::ceil(Bytes(gib << 30));
        assert_eq!(ram(pages(3)), [PpnRange::new(Ppn(0), pages(3))]);
        assert_eq!(ram(pages(4)), [PpnRange::new(Ppn(0), pages(3)), PpnRange::new(Ppn(1 << 20), pages(1))]);
    }
}
