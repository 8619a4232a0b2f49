use std::sync::Arc;

use anyhow::{Context, Result};
use kvm_ioctls::VmFd;
use plimsoll_protocol::definition;

use super::kvm_wiring::KvmWiring;
use crate::boot::layout;
use crate::bus::Bus;
use crate::pci::{Ecam, MemoryWindow, Msix, Ports, Root, Wiring};
use crate::virtio::pci::{BAR_LENGTH, PciTransport};
use crate::virtio::{DeviceKind, VirtioDevice};

/// Functions in a slot.
const SLOT: u8 = 8;

/// The number of the first function of each kind. They do not depend on what else a VM has, so the
/// names that guests make of them stay. Disks are numbered in their order: Linux names them as it
/// finds them.
fn first_number(kind: DeviceKind) -> u8 {
    match kind {
        DeviceKind::Block => SLOT,
        DeviceKind::Net => 5 * SLOT,
        DeviceKind::Balloon => 6 * SLOT,
        DeviceKind::Entropy => 7 * SLOT,
        DeviceKind::Vsock => 8 * SLOT,
    }
}

const _: () = {
    let bus = definition::Bus::Pci;
    assert!(bus.max_disks(false) <= 4 * SLOT as usize && bus.max_nets() <= SLOT as usize);
};

/// Virtio devices as functions of a PCI bus.
pub(super) struct PciBus {
    root: Arc<Root>,
    /// The functions' interrupts.
    functions: Vec<Arc<Msix>>,
    wiring: Arc<KvmWiring>,
}

impl PciBus {
    /// Puts `devices` on a bus, their BARs where they do not touch.
    ///
    /// # Errors
    /// No file descriptors left.
    pub(super) fn new(devices: Vec<Box<dyn VirtioDevice>>) -> Result<Self> {
        let wiring = Arc::new(KvmWiring::default());
        let mut root = Root::new(layout::PCI_WINDOW);
        let mut functions = Vec::new();
        let mut line = layout::GSIS;
        let mut before: Option<(DeviceKind, u8)> = None;
        for device in devices {
            let kind = device.kind();
            let number =
                before.filter(|(last, _)| *last == kind).map_or(first_number(kind), |(_, last)| last + 1);
            before = Some((kind, number));
            let base = layout::PCI_WINDOW.start + u64::from(number) * BAR_LENGTH;
            let lines = PciTransport::lines(&*device);
            let wiring = Arc::clone(&wiring) as Arc<dyn Wiring>;
            let function = PciTransport::new(device, base, line, wiring).context("virtio transport")?;
            line += u32::from(lines);
            functions.push(Arc::clone(function.msix()));
            root.add(number, Box::new(function));
        }
        Ok(Self { root: Arc::new(root), functions, wiring })
    }

    /// Puts configuration space and BARs on the buses.
    ///
    /// # Errors
    /// Their addresses are taken.
    pub(super) fn attach(&self, ports: &mut Bus, mmio: &mut Bus) -> Result<()> {
        let root = || Arc::clone(&self.root);
        ports.insert(layout::PCI_PORT.into(), Ports::LENGTH, Arc::new(Ports(root())))?;
        mmio.insert(layout::PCI_ECAM, Ecam::LENGTH, Arc::new(Ecam(root())))?;
        let window = layout::PCI_WINDOW;
        mmio.insert(window.start, window.end - window.start, Arc::new(MemoryWindow(root())))?;
        Ok(())
    }

    /// Connects the functions' interrupts, and lets them be connected as the guest sets them up.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(super) fn connect(&self, vm: &Arc<VmFd>) -> Result<()> {
        self.wiring.connect(vm, &self.functions)
    }

    /// Lets go of the VM.
    pub(super) fn disconnect(&self) {
        self.wiring.disconnect();
    }

    /// Resets all functions. Waits for their I/O.
    pub(super) fn reset(&self) {
        self.root.reset();
    }
}
