use std::fs::File;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::BootConfig;
use plimsoll_sys::lock;

use crate::boot::layout;
use crate::bus::{Bus, BusDevice};
use crate::control::Mailbox;
use crate::fds::PassedFds;
use crate::virtio::balloon::{Balloon, BalloonHandle};
use crate::virtio::block::{Block, BlockConfig, Geometry};
use crate::virtio::entropy::Entropy;
use crate::virtio::mmio::{MmioTransport, WINDOW};
use crate::virtio::net::{Link, Net};
use crate::virtio::{NoticeSink, VirtioDevice};

/// A VM's virtio devices behind their windows, in the order of their interrupt lines.
pub(crate) struct VirtioDevices {
    windows: Vec<Arc<Window>>,
    /// Steers the balloon device.
    pub(crate) balloon: BalloonHandle,
}

/// One device's registers. The lock is held by one vCPU at a time, and, while the guest resets the
/// device, until its I/O has ended.
pub(crate) struct Window(Mutex<MmioTransport>);

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.0).read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        lock(&self.0).write(offset, data);
    }
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
        let windows: Result<Vec<_>> = devices
            .into_iter()
            .map(|device| Ok(Arc::new(Window(Mutex::new(MmioTransport::new(device)?)))))
            .collect();
        let windows = windows.context("virtio transport")?;
        // The layout has room for the most devices of each kind.
        ensure!(windows.len() <= layout::MAX_VIRTIO as usize, "{} devices are too many", windows.len());
        Ok(Self { windows, balloon })
    }

    /// The number of devices.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.windows.len()).unwrap_or(layout::MAX_VIRTIO)
    }

    /// Puts the windows on the bus.
    pub(crate) fn attach(&self, mmio: &mut Bus) -> Result<()> {
        for (index, window) in (0..).zip(&self.windows) {
            let device = Arc::clone(window) as Arc<dyn BusDevice>;
            mmio.insert(layout::virtio_window(index), WINDOW, device)?;
        }
        Ok(())
    }

    /// Calls `connect` with each device's number and transport.
    pub(crate) fn each<E>(
        &self,
        mut connect: impl FnMut(u32, &MmioTransport) -> Result<(), E>,
    ) -> Result<(), E> {
        (0..).zip(&self.windows).try_for_each(|(index, window)| connect(index, &lock(&window.0)))
    }

    /// Resets all devices: no I/O is in flight afterwards, and no interrupt is pending. Waits for
    /// I/O, and for pages that a device waits for.
    pub(crate) fn reset(&self) {
        self.windows.iter().for_each(|window| lock(&window.0).reset());
    }
}

fn sink(mailbox: &Arc<Mailbox>) -> NoticeSink {
    let mailbox = Arc::clone(mailbox);
    Arc::new(move |text: String| mailbox.notice(text))
}
