//! Interrupts by messages and doorbells of PCI functions, in KVM.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use plimsoll_sys::lock;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::layout;
use crate::pci::{Message, Msix, Wiring};

/// Lines of a PC's two interrupt controllers.
const PIC_LINES: u32 = 16;

/// The VM to which functions are connected, while there is one: each boot has a new VM.
#[derive(Default)]
pub(super) struct KvmWiring(Mutex<Option<Wires>>);

struct Wires {
    vm: Arc<VmFd>,
    /// Where KVM takes the lines of functions that send messages now. It knows its routes only as a
    /// whole.
    routes: BTreeMap<u32, Message>,
}

impl KvmWiring {
    /// Connects `functions`, which have just been reset, to `vm`.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(super) fn connect(&self, vm: &Arc<VmFd>, functions: &[Arc<Msix>]) -> Result<()> {
        for (line, event) in functions.iter().flat_map(|msix| msix.lines()) {
            vm.register_irqfd(event, line).with_context(|| format!("KVM_IRQFD for line {line}"))?;
        }
        *lock(&self.0) = Some(Wires { vm: Arc::clone(vm), routes: BTreeMap::new() });
        Ok(())
    }

    /// Lets go of the VM.
    pub(super) fn disconnect(&self) {
        *lock(&self.0) = None;
    }
}

impl Wiring for KvmWiring {
    fn route(&self, line: u32, message: Option<Message>) {
        let mut wires = lock(&self.0);
        let Some(Wires { vm, routes }) = &mut *wires else { return };
        match message {
            Some(message) => drop(routes.insert(line, message)),
            None => drop(routes.remove(&line)),
        }
        let entries: Vec<_> =
            fixed().chain(routes.iter().map(|(line, message)| entry(*line, *message))).collect();
        let set = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| anyhow::anyhow!("{} routes: {error:?}", entries.len()))
            .and_then(|routing| vm.set_gsi_routing(&routing).context("KVM_SET_GSI_ROUTING"));
        if let Err(error) = set {
            tracing::warn!(line, "an interrupt of the guest is lost: {error:#}");
        }
    }

    fn watch(&self, address: u64, kick: &EventFd) {
        let wires = lock(&self.0);
        let Some(Wires { vm, .. }) = &*wires else { return };
        // Without it the guest leaves for each notification, and is served all the same.
        if let Err(error) = vm.register_ioevent(kick, &IoEventAddress::Mmio(address), NoDatamatch) {
            tracing::warn!(%error, "KVM_IOEVENTFD at {address:#x}: the guest's notifications are slow");
        }
    }

    fn unwatch(&self, address: u64, kick: &EventFd) {
        let wires = lock(&self.0);
        let Some(Wires { vm, .. }) = &*wires else { return };
        // Fails where `watch` has failed.
        vm.unregister_ioevent(kick, &IoEventAddress::Mmio(address), NoDatamatch).ok();
    }
}

/// The lines of the I/O APIC and the PICs, as KVM routes them before it is told otherwise.
fn fixed() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let chip = |gsi: u32, irqchip: u32, pin: u32| kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 { irqchip: kvm_irq_routing_irqchip { irqchip, pin } },
        ..Default::default()
    };
    let pic = move |gsi: u32| match gsi {
        0..8 => chip(gsi, KVM_IRQCHIP_PIC_MASTER, gsi),
        _ => chip(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8),
    };
    (0..PIC_LINES).map(pic).chain((0..layout::GSIS).map(move |gsi| chip(gsi, KVM_IRQCHIP_IOAPIC, gsi)))
}

fn entry(gsi: u32, Message { address, data }: Message) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi { address_lo: address, address_hi: 0, data, ..Default::default() };
    let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
    kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, u, ..Default::default() }
}
