use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VmFd;
use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::BootConfig;
use plimsoll_protocol::definition;

use super::mmio_windows::MmioWindows;
use super::pci_bus::PciBus;
use crate::boot::acpi;
use crate::bus::Bus;
use crate::control::Mailbox;
use crate::fds::PassedFds;
use crate::virtio::balloon::{Balloon, BalloonHandle};
use crate::virtio::block::{Block, BlockConfig, Geometry};
use crate::virtio::entropy::Entropy;
use crate::virtio::net::{Link, Net};
use crate::virtio::{NoticeSink, VirtioDevice};

/// A VM's virtio devices, on the bus that its definition names.
pub(crate) struct VirtioDevices {
    bus: Attached,
    /// Steers the balloon device.
    pub(crate) balloon: BalloonHandle,
}

enum Attached {
    Mmio(MmioWindows),
    Pci(PciBus),
}

impl VirtioDevices {
    /// Makes all devices of `config`: disks, then interfaces, then the balloon and the source of
    /// entropy. Linux names disks and interfaces in the order in which it finds them.
    ///
    /// # Errors
    /// Descriptors and configuration do not agree, or a backend is refused by its device.
    pub(crate) fn new(
        config: &BootConfig,
        fds: &mut PassedFds,
        pmap: &Arc<Pmap>,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Self> {
        let notices = sink(mailbox);
        let (disks, taps) = (std::mem::take(&mut fds.disks), std::mem::take(&mut fds.taps));
        ensure!(
            disks.len() == config.disks.len() && taps.len() == config.nets.len(),
            "the daemon passed {} disks and {} taps for {} and {}",
            disks.len(),
            taps.len(),
            config.disks.len(),
            config.nets.len()
        );
        let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
        for (index, (disk, fd)) in config.disks.iter().zip(disks).enumerate() {
            let name = format!("disk{index}");
            let id = format!("plimsoll-{name}");
            let file = File::from(fd);
            let block = BlockConfig {
                geometry: Geometry::of(&file).with_context(|| name.clone())?,
                file,
                read_only: disk.read_only,
                rate: disk.rate,
                id,
                io_uring: true,
            };
            let device = Block::new(&name, block, pmap, Arc::clone(&notices)).context(name)?;
            devices.push(Box::new(device));
        }
        for (index, (net, fd)) in config.nets.iter().zip(taps).enumerate() {
            let name = format!("net{index}");
            let link = Link::tap(fd).with_context(|| name.clone())?;
            let device = Net::new(&name, link, net.mac, pmap, Arc::clone(&notices)).context(name)?;
            devices.push(Box::new(device));
        }
        let (device, balloon) =
            Balloon::new("balloon", config.balloon, pmap, Arc::clone(&notices)).context("balloon")?;
        devices.push(Box::new(device));
        devices.push(Box::new(Entropy::new("entropy", pmap, notices).context("entropy")?));
        let bus = match config.bus {
            definition::Bus::Mmio => Attached::Mmio(MmioWindows::new(devices)?),
            definition::Bus::Pci => Attached::Pci(PciBus::new(devices)?),
        };
        Ok(Self { bus, balloon })
    }

    /// What guests are told of them.
    pub(crate) fn described(&self) -> acpi::VirtioBus {
        match &self.bus {
            Attached::Mmio(windows) => windows.described(),
            Attached::Pci(_) => acpi::VirtioBus::Pci,
        }
    }

    /// Puts them where vCPUs reach them.
    ///
    /// # Errors
    /// Their addresses are taken.
    pub(crate) fn attach(&self, ports: &mut Bus, mmio: &mut Bus) -> Result<()> {
        match &self.bus {
            Attached::Mmio(windows) => windows.attach(mmio),
            Attached::Pci(bus) => bus.attach(ports, mmio),
        }
    }

    /// Connects the devices' interrupts and notifications to a new VM.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(crate) fn connect(&self, vm: &Arc<VmFd>) -> Result<()> {
        match &self.bus {
            Attached::Mmio(windows) => windows.connect(vm),
            Attached::Pci(bus) => bus.connect(vm),
        }
    }

    /// Lets go of the VM, whose vCPUs have stopped.
    pub(crate) fn disconnect(&self) {
        match &self.bus {
            // Interrupts and notifications end with it.
            Attached::Mmio(_) => {}
            Attached::Pci(bus) => bus.disconnect(),
        }
    }

    /// Resets all devices: no I/O is in flight afterwards, and no interrupt is pending. Waits for
    /// I/O, and for pages that a device waits for.
    pub(crate) fn reset(&self) {
        match &self.bus {
            Attached::Mmio(windows) => windows.reset(),
            Attached::Pci(bus) => bus.reset(),
        }
    }
}

fn sink(mailbox: &Arc<Mailbox>) -> NoticeSink {
    let mailbox = Arc::clone(mailbox);
    Arc::new(move |text: String| mailbox.notice(text))
}
