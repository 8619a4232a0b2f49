use std::io;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use kvm_ioctls::{IoEventAddress, VmFd};
use plimsoll_sys::lock;

use crate::boot::acpi;
use crate::boot::layout;
use crate::bus::{Bus, BusDevice};
use crate::virtio::VirtioDevice;
use crate::virtio::mmio::{MmioTransport, NOTIFY_OFFSET, WINDOW};

/// Virtio devices behind windows of addresses, in the order of their interrupt lines.
pub(super) struct MmioWindows(Vec<Arc<Window>>);

/// One device's registers. The lock is held by one vCPU at a time, and, while the guest resets the
/// device, until its I/O has ended.
struct Window(Mutex<MmioTransport>);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.0).read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        lock(&self.0).write(offset, data);
    }
}

impl MmioWindows {
    /// Puts `devices` behind windows.
    ///
    /// # Errors
    /// There are too many, or no file descriptors left.
    pub(super) fn new(devices: Vec<Box<dyn VirtioDevice>>) -> Result<Self> {
        // The layout has room for the most devices of each kind.
        ensure!(devices.len() <= layout::MAX_VIRTIO as usize, "{} devices are too many", devices.len());
        let window = |device| Ok(Arc::new(Window(Mutex::new(MmioTransport::new(device)?))));
        let windows: io::Result<_> = devices.into_iter().map(window).collect();
        Ok(Self(windows.context("virtio transport")?))
    }

    /// What guests are told of them.
    pub(super) fn described(&self) -> acpi::VirtioBus {
        acpi::VirtioBus::Mmio(u32::try_from(self.0.len()).unwrap_or(layout::MAX_VIRTIO))
    }

    /// Puts the windows on the bus.
    ///
    /// # Errors
    /// Their addresses are taken.
    pub(super) fn attach(&self, mmio: &mut Bus) -> Result<()> {
        for (index, window) in (0..).zip(&self.0) {
            mmio.insert(layout::virtio_window(index), WINDOW, Arc::clone(window) as _)?;
        }
        Ok(())
    }

    /// Connects the devices' interrupts and notifications.
    ///
    /// # Errors
    /// The KVM call that failed.
    pub(super) fn connect(&self, vm: &VmFd) -> Result<()> {
        for (index, window) in (0..).zip(&self.0) {
            let transport = lock(&window.0);
            let gsi = layout::virtio_gsi(index);
            vm.register_irqfd(transport.line(), gsi).with_context(|| format!("KVM_IRQFD for line {gsi}"))?;
            let notify = IoEventAddress::Mmio(layout::virtio_window(index) + NOTIFY_OFFSET);
            for (queue, kick) in (0u32..).zip(transport.kicks()) {
                vm.register_ioevent(kick, &notify, queue)
                    .with_context(|| format!("KVM_IOEVENTFD for device {index}, queue {queue}"))?;
            }
        }
        Ok(())
    }

    /// Resets all devices. Waits for their I/O.
    pub(super) fn reset(&self) {
        self.0.iter().for_each(|window| lock(&window.0).reset());
    }
}
