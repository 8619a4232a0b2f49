use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VmFd;
use plimsoll_image::{FileStorage, Format, Image, chain};
use plimsoll_pmap::Pmap;
use plimsoll_protocol::control::{BootConfig, DeviceOrder, DiskConfig, MAX_NETS};
use plimsoll_protocol::definition::{self, ImageFormat};
use plimsoll_units::Bytes;

use super::mmio_windows::MmioWindows;
use super::pci_bus::PciBus;
use crate::boot::acpi;
use crate::bus::Bus;
use crate::fds::PassedFds;
use crate::mailbox::Mailbox;
use crate::virtio::balloon::{Balloon, BalloonHandle};
use crate::virtio::block::{Block, BlockConfig, BlockHandle, Geometry, Medium, WrittenImages};
use crate::virtio::entropy::Entropy;
use crate::virtio::net::{Link, Net, NetHandle};
use crate::virtio::vsock::{Dial, Vsock, VsockHandle};
use crate::virtio::{NoticeSink, VirtioDevice};

/// A VM's virtio devices, on the bus that its definition names.
pub(crate) struct VirtioDevices {
    bus: Attached,
    /// Steers the balloon device.
    pub(crate) balloon: BalloonHandle,
    /// Answers the vsock device, if there is one.
    pub(crate) vsock: Option<VsockHandle>,
    /// Change disks and interfaces.
    pub(crate) handles: DeviceHandles,
    /// Disks that are images and written.
    pub(crate) images: WrittenImages,
    /// The first disk, if it is an image.
    first_image: Option<Arc<Image<FileStorage>>>,
}

/// Handles of a VM's disks and interfaces, each in their order. A model guest has none.
#[derive(Clone, Default)]
pub(crate) struct DeviceHandles {
    disks: Vec<BlockHandle>,
    nets: Vec<NetHandle>,
}

impl DeviceHandles {
    /// Packets that each interface has dropped because of their source address.
    pub(crate) fn filtered(&self) -> [u64; MAX_NETS] {
        let mut filtered = [0; MAX_NETS];
        filtered.iter_mut().zip(&self.nets).for_each(|(count, net)| *count = net.filtered());
        filtered
    }

    /// Changes a device. An order for one that is not there does nothing, but is answered. Answers
    /// go to `mailbox`.
    pub(crate) fn obey(&self, order: DeviceOrder, mailbox: &Arc<Mailbox>) {
        match order {
            DeviceOrder::DiskSize { disk: place, size } => match self.disks.get(usize::from(place)) {
                Some(disk) => {
                    let mailbox = Arc::clone(mailbox);
                    disk.grow(size.0, move |grown| mailbox.resized(place, grown.map(Bytes)));
                }
                None => mailbox.resized(place, Ok(size)),
            },
            DeviceOrder::DiskRate { disk, rate } => {
                if let Some(disk) = self.disks.get(usize::from(disk)) {
                    disk.set_rate(rate);
                }
            }
            DeviceOrder::Net { net, settings } => {
                if let Some(net) = self.nets.get(usize::from(net)) {
                    net.set(settings);
                }
            }
        }
    }
}

enum Attached {
    Mmio(MmioWindows),
    Pci(PciBus),
}

impl VirtioDevices {
    /// Makes all devices of `config`: disks, then interfaces, the balloon, the source of entropy,
    /// and sockets. Linux names disks and interfaces in the order in which it finds them.
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
        let mut handles = DeviceHandles::default();
        let (mut images, mut first_image) = (Vec::new(), None);
        for (index, (disk, files)) in config.disks.iter().zip(disks).enumerate() {
            let name = format!("disk{index}");
            let id = disk.serial.clone();
            let medium = medium(disk, files).with_context(|| name.clone())?;
            if let Medium::Image(image) = &medium {
                if index == 0 {
                    first_image = Some(Arc::clone(image));
                }
                if !disk.read_only {
                    images.push((name.clone(), Arc::clone(image)));
                }
            }
            let block =
                BlockConfig { medium, read_only: disk.read_only, rate: disk.rate, id, io_uring: true };
            let device = Block::new(&name, block, pmap, Arc::clone(&notices)).context(name)?;
            handles.disks.push(device.handle());
            devices.push(Box::new(device));
        }
        for (index, (net, fd)) in config.nets.iter().zip(taps).enumerate() {
            let name = format!("net{index}");
            let link = Link::tap(fd).with_context(|| name.clone())?;
            let device = Net::new(&name, link, *net, pmap, Arc::clone(&notices)).context(name)?;
            handles.nets.push(device.handle());
            devices.push(Box::new(device));
        }
        let (device, balloon) =
            Balloon::new("balloon", config.balloon, pmap, Arc::clone(&notices)).context("balloon")?;
        devices.push(Box::new(device));
        let entropy = Entropy::new("entropy", pmap, Arc::clone(&notices)).context("entropy")?;
        devices.push(Box::new(entropy));
        let listener = fds.vsock_listener.take();
        let vsock = config.vsock.map(|config| {
            let dialer = Arc::clone(mailbox);
            let dial: Dial = Arc::new(move |id, port| dialer.dial(id, port));
            Vsock::new("vsock", config, listener, dial, pmap, notices).context("vsock")
        });
        let (device, vsock) = vsock.transpose()?.unzip();
        devices.extend(device.map(|device| Box::new(device) as Box<dyn VirtioDevice>));
        let bus = match config.bus {
            definition::Bus::Mmio => Attached::Mmio(MmioWindows::new(devices)?),
            definition::Bus::Pci => Attached::Pci(PciBus::new(devices)?),
        };
        Ok(Self { bus, balloon, handles, vsock, images: WrittenImages::new(images), first_image })
    }

    /// What the first disk's device has open, if that disk is an image.
    pub(crate) fn first_image(&self) -> Option<Arc<Image<FileStorage>>> {
        self.first_image.clone()
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

/// What `disk` lies in: its own file, then its backing files.
fn medium(disk: &DiskConfig, files: Vec<OwnedFd>) -> Result<Medium> {
    let formats = formats(disk, files.len())?;
    let mut files = files.into_iter().map(File::from).zip(formats);
    match (disk.format, files.len(), files.next()) {
        (ImageFormat::Raw, 1, Some((file, _))) => {
            let geometry = Geometry::of(&file)?;
            Ok(Medium::File(file, geometry))
        }
        (_, _, top) => {
            Ok(Medium::Image(Arc::new(chain::image(top.into_iter().chain(files), !disk.read_only)?)))
        }
    }
}

/// The formats of the `count` files of `disk`.
///
/// # Errors
/// The daemon passed another number of files.
pub(super) fn formats(disk: &DiskConfig, count: usize) -> Result<Vec<Format>> {
    let formats = [disk.format].into_iter().chain(disk.backing.iter().copied());
    let formats: Vec<_> = formats
        .map(|format| match format {
            ImageFormat::Raw => Format::Raw,
            ImageFormat::Qcow2 => Format::Qcow2,
        })
        .collect();
    ensure!(formats.len() == count, "the daemon passed {count} files for {}", formats.len());
    Ok(formats)
}

fn sink(mailbox: &Arc<Mailbox>) -> NoticeSink {
    let mailbox = Arc::clone(mailbox);
    Arc::new(move |text: String| mailbox.notice(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use plimsoll_image::create::create;
    use plimsoll_image::{Backing, FileStorage};
    use plimsoll_protocol::control::RateLimit;

    use super::*;

    fn config(format: ImageFormat, backing: &[ImageFormat]) -> DiskConfig {
        let (read_only, longest, rate) = (false, Bytes::ZERO, RateLimit::default());
        DiskConfig { serial: String::new(), read_only, format, backing: backing.to_vec(), longest, rate }
    }

    #[test]
    fn a_disk_is_a_file_or_an_image_with_its_backing_files_as_the_daemon_says() {
        let raw = tempfile::tempfile().unwrap();
        raw.write_all_at(&[7; 8192], 0).unwrap();
        let top = tempfile::tempfile().unwrap();
        let backing = Backing { name: "any".to_owned(), format: Some(Format::Raw) };
        create(&FileStorage::new(top.try_clone().unwrap()).unwrap(), 8192, 4096, Some(&backing)).unwrap();
        let files =
            |files: &[&File]| files.iter().map(|file| file.try_clone().unwrap().into()).collect::<Vec<_>>();
        let image = config(ImageFormat::Qcow2, &[ImageFormat::Raw]);
        let Medium::Image(image) = medium(&image, files(&[&top, &raw])).unwrap() else { panic!("no image") };
        let mut read = [0; 512];
        image.read(&mut read, 4096).unwrap();
        assert_eq!(read, [7; 512]);
        let plain = config(ImageFormat::Raw, &[]);
        assert!(matches!(medium(&plain, files(&[&top])).unwrap(), Medium::File(..)));
        for (format, backing, given) in [
            (ImageFormat::Qcow2, &[][..], &[&top][..]),
            (ImageFormat::Qcow2, &[ImageFormat::Raw], &[&top]),
            (ImageFormat::Qcow2, &[], &[&raw]),
            (ImageFormat::Raw, &[ImageFormat::Raw], &[&raw, &raw]),
            (ImageFormat::Raw, &[], &[]),
        ] {
            assert!(medium(&config(format, backing), files(given)).is_err(), "{format:?} {backing:?}");
        }
    }
}
