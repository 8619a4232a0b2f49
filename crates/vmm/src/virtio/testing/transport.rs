//! Either transport in front of a device, for tests: driven by the names of MMIO's registers, which
//! are translated for PCI. So a test of a device or of a hostile driver runs over both.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::pci::Function;
use crate::pci::testing::Record;
use crate::virtio::VirtioDevice;
use crate::virtio::mmio::MmioTransport;
use crate::virtio::pci::{PciTransport, field, part};
use crate::virtio::registers::offset;

/// A transport with its device.
pub(in crate::virtio) enum Transport {
    Mmio(MmioTransport),
    Pci(Box<OnPci>),
    /// Between the two.
    Moving,
}

/// A device on PCI.
pub(in crate::virtio) struct OnPci {
    pub(in crate::virtio) function: PciTransport,
    pub(in crate::virtio) record: Arc<Record>,
    /// Causes that were read and not acknowledged since: PCI clears them when they are read.
    cause: u32,
}

/// Where tests put the BAR, and the first line of its interrupts.
pub(in crate::virtio) const BASE: u64 = 0xd000_0000;
pub(in crate::virtio) const LINE: u32 = 24;

impl OnPci {
    pub(in crate::virtio) fn new(device: Box<dyn VirtioDevice>) -> Self {
        let record = Arc::new(Record::default());
        let function = PciTransport::new(device, BASE, LINE, Arc::clone(&record) as _).unwrap();
        Self { function, record, cause: 0 }
    }

    pub(in crate::virtio) fn read(&mut self, at: u64, width: usize) -> u32 {
        let mut word = [0; 4];
        self.function.read_bar(at, &mut word[..width]);
        u32::from_le_bytes(word)
    }

    pub(in crate::virtio) fn write(&mut self, at: u64, width: usize, value: u32) {
        self.function.write_bar(at, &value.to_le_bytes()[..width]);
    }

    fn get(&mut self, register: u64) -> u32 {
        match register {
            offset::DEVICE_FEATURES => self.read(field::DEVICE_FEATURE, 4),
            offset::QUEUE_READY => self.read(field::QUEUE_ENABLE, 2),
            offset::STATUS => self.read(field::STATUS, 1),
            offset::INTERRUPT_STATUS => {
                self.cause |= self.read(part::ISR.into(), 1);
                self.cause
            }
            offset::CONFIG.. => self.read(u64::from(part::CONFIG) + register - offset::CONFIG, 4),
            _ => panic!("PCI has no register for {register:#x}"),
        }
    }

    fn set(&mut self, register: u64, value: u32) {
        let (at, width) = match register {
            offset::DEVICE_FEATURES_SEL => (field::DEVICE_FEATURE_SELECT, 4),
            offset::DRIVER_FEATURES_SEL => (field::DRIVER_FEATURE_SELECT, 4),
            offset::DRIVER_FEATURES => (field::DRIVER_FEATURE, 4),
            offset::QUEUE_SEL => (field::QUEUE_SELECT, 2),
            offset::QUEUE_NUM => (field::QUEUE_SIZE, 2),
            offset::QUEUE_READY => (field::QUEUE_ENABLE, 2),
            offset::QUEUE_NOTIFY => (u64::from(part::NOTIFY) + 4 * u64::from(value % 1024), 2),
            offset::INTERRUPT_ACK => {
                self.cause &= !value;
                return;
            }
            offset::STATUS => (field::STATUS, 1),
            offset::QUEUE_DESC_LOW..=offset::QUEUE_DESC_HIGH => {
                (field::QUEUE_DESC + register - offset::QUEUE_DESC_LOW, 4)
            }
            offset::QUEUE_DRIVER_LOW..=offset::QUEUE_DRIVER_HIGH => {
                (field::QUEUE_DRIVER + register - offset::QUEUE_DRIVER_LOW, 4)
            }
            offset::QUEUE_DEVICE_LOW..=offset::QUEUE_DEVICE_HIGH => {
                (field::QUEUE_DEVICE + register - offset::QUEUE_DEVICE_LOW, 4)
            }
            offset::CONFIG.. => (u64::from(part::CONFIG) + register - offset::CONFIG, 4),
            _ => return,
        };
        self.write(at, width, value);
    }

    /// An access to configuration space, or to the BAR.
    fn access(&mut self, at: u64, data: &[u8]) {
        if at < 0x100 {
            let at = usize::try_from(at).unwrap();
            self.function.read_config(at, &mut data.to_vec());
            self.function.write_config(at, data);
            // As the bus does, which lets it be where it wants.
            let bar = self.function.bar().map(|bar| bar.start).filter(|base| *base < 1 << 32);
            self.function.map(bar);
            let doorbells = bar.map_or(0, |_| self.function.kicks().len());
            assert_eq!(self.record.watched().len(), doorbells);
        } else {
            // The common configuration by bytes, the rest of the BAR by eight.
            let at = if at < 0x200 { at - 0x100 } else { at * 8 };
            self.function.read_bar(at, &mut data.to_vec());
            self.function.write_bar(at, data);
        }
        let lines = self.function.msix().lines().map(|(line, _)| line);
        let last = lines.last().unwrap();
        for (line, message) in self.record.routes() {
            assert!((LINE..=last).contains(&line) && message.address >> 20 == 0xfee, "{line} {message:?}");
        }
    }
}

impl Transport {
    /// Takes the device from MMIO to PCI.
    pub(in crate::virtio) fn move_to_pci(&mut self) {
        let Self::Mmio(mmio) = std::mem::replace(self, Self::Moving) else { panic!("it has moved before") };
        *self = Self::Pci(Box::new(OnPci::new(mmio.into_device())));
    }

    /// The device's place on PCI.
    pub(in crate::virtio) fn pci(&mut self) -> &mut OnPci {
        match self {
            Self::Pci(pci) => pci,
            _ => panic!("it is not on PCI"),
        }
    }

    pub(in crate::virtio) fn get(&mut self, register: u64) -> u32 {
        match self {
            Self::Mmio(mmio) => {
                let mut word = [0; 4];
                mmio.read(register, &mut word);
                u32::from_le_bytes(word)
            }
            Self::Pci(pci) => pci.get(register),
            Self::Moving => 0,
        }
    }

    pub(in crate::virtio) fn set(&mut self, register: u64, value: u32) {
        match self {
            Self::Mmio(mmio) => mmio.write(register, &value.to_le_bytes()),
            Self::Pci(pci) => pci.set(register, value),
            Self::Moving => {}
        }
    }

    /// Reads the device's configuration space, which begins at [`offset::CONFIG`].
    pub(in crate::virtio) fn read(&mut self, at: u64, data: &mut [u8]) {
        match self {
            Self::Mmio(mmio) => mmio.read(at, data),
            Self::Pci(pci) => pci.function.read_bar(u64::from(part::CONFIG) + at - offset::CONFIG, data),
            Self::Moving => {}
        }
    }

    /// Writes it.
    pub(in crate::virtio) fn write(&mut self, at: u64, data: &[u8]) {
        match self {
            Self::Mmio(mmio) => mmio.write(at, data),
            Self::Pci(pci) => pci.function.write_bar(u64::from(part::CONFIG) + at - offset::CONFIG, data),
            Self::Moving => {}
        }
    }

    /// Reads and writes anywhere.
    pub(in crate::virtio) fn access(&mut self, at: u64, data: &[u8]) {
        match self {
            Self::Mmio(mmio) => {
                mmio.read(at, &mut data.to_vec());
                mmio.write(at, data);
            }
            Self::Pci(pci) => pci.access(at, data),
            Self::Moving => {}
        }
    }

    pub(in crate::virtio) fn kicks(&self) -> &[EventFd] {
        match self {
            Self::Mmio(mmio) => mmio.kicks(),
            Self::Pci(pci) => pci.function.kicks(),
            Self::Moving => &[],
        }
    }

    pub(in crate::virtio) fn reset(&mut self) {
        match self {
            Self::Mmio(mmio) => mmio.reset(),
            Self::Pci(pci) => {
                pci.function.reset();
                pci.cause = 0;
            }
            Self::Moving => {}
        }
    }

    pub(in crate::virtio) fn barrier(&self) {
        match self {
            Self::Mmio(mmio) => mmio.barrier(),
            Self::Pci(pci) => pci.function.barrier(),
            Self::Moving => {}
        }
    }

    /// The interrupt line of MMIO.
    pub(in crate::virtio) fn line(&self) -> &EventFd {
        match self {
            Self::Mmio(mmio) => mmio.line(),
            _ => panic!("PCI has no line"),
        }
    }
}
