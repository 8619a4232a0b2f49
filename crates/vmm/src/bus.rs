//! Where the guest's port and memory-mapped accesses find their device.

use std::sync::Arc;

/// A device behind a range of ports or addresses. Every vCPU's thread calls it. Whatever the guest
/// does, it neither panics nor blocks for long.
pub(crate) trait BusDevice: Send + Sync {
    /// Fills `data` (1 to 8 bytes) with what is at `offset` from the range's base.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` (1 to 8 bytes) at `offset` from the range's base.
    fn write(&self, offset: u64, data: &[u8]);
    /// The widest access that it takes at a port, in bytes: string instructions bring many accesses
    /// to one port at once, and do not say how wide each is.
    fn width(&self) -> usize {
        1
    }
}

/// Devices by address. Nothing is changed once the guest runs, so no lock is taken.
#[derive(Default)]
pub(crate) struct Bus(Vec<Slot>);

struct Slot {
    base: u64,
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// Two devices that would share an address: a mistake in the machine's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range {base:#x}+{len:#x} is taken by another device")]
pub(crate) struct Overlap {
    base: u64,
    len: u64,
}

impl Bus {
    /// Puts a device at `base`.
    ///
    /// # Errors
    /// The range overlaps another device's, is empty or wraps around.
    pub(crate) fn insert(&mut self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), Overlap> {
        let overlap = Overlap { base, len };
        let end = base.checked_add(len).filter(|end| *end > base).ok_or(overlap)?;
        if self.0.iter().any(|slot| base < slot.base + slot.len && slot.base < end) {
            return Err(overlap);
        }
        let at = self.0.partition_point(|slot| slot.base < base);
        self.0.insert(at, Slot { base, len, device });
        Ok(())
    }

    /// Serves a read of the guest. Addresses without a device read as all ones, as on an undriven
    /// bus.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Serves a write of the guest. Writes to addresses without a device are lost.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }

    /// How wide accesses to the port `port` are at most, in bytes.
    pub(crate) fn width(&self, port: u16) -> usize {
        self.find(port.into(), 1).map_or(1, |(device, _)| device.width())
    }

    /// The device that has the whole access within its range.
    fn find(&self, address: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let at = self.0.partition_point(|slot| slot.base <= address).checked_sub(1)?;
        let slot = &self.0[at];
        let offset = address - slot.base;
        let end = offset.checked_add(len as u64)?;
        (end <= slot.len).then_some((&*slot.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use plimsoll_sys::lock;

    #[derive(Default)]
    struct Echo(Mutex<Vec<(u64, usize)>>);

    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            lock(&self.0).push((offset, data.len()));
            data.fill(0);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            lock(&self.0).push((offset, data.len()));
        }
    }

    #[test]
    fn devices_do_not_overlap() {
        let mut bus = Bus::default();
        let device = || Arc::new(Echo::default());
        bus.insert(0x100, 0x10, device()).unwrap();
        bus.insert(0x110, 0x10, device()).unwrap();
        for (base, len) in [(0x10f, 1), (0xff, 2), (0, 0x1000), (0x118, 1), (0x200, 0), (u64::MAX, 2)] {
            assert_eq!(bus.insert(base, len, device()), Err(Overlap { base, len }));
        }
    }

    struct Wide;

    impl BusDevice for Wide {
        fn read(&self, _: u64, _: &mut [u8]) {}
        fn write(&self, _: u64, _: &[u8]) {}
        fn width(&self) -> usize {
            4
        }
    }

    #[test]
    fn a_port_is_as_wide_as_its_device_says() {
        let mut bus = Bus::default();
        bus.insert(0x10, 8, Arc::new(Echo::default())).unwrap();
        bus.insert(0x18, 8, Arc::new(Wide)).unwrap();
        assert_eq!([0x10, 0x17, 0x18, 0x1f, 0x20].map(|port| bus.width(port)), [1, 1, 4, 4, 1]);
    }

    proptest! {
        #[test]
        fn no_access_leaves_its_device(address in prop_oneof![0u64..0x300, any::<u64>()], len in 1usize..=8) {
            let mut bus = Bus::default();
            let device = Arc::new(Echo::default());
            bus.insert(0x100, 0x20, Arc::clone(&device) as Arc<dyn BusDevice>).unwrap();
            let mut data = vec![0x5a; len];
            bus.read(address, &mut data);
            bus.write(address, &data);
            let calls = lock(&device.0);
            if calls.is_empty() {
                prop_assert!(data.iter().all(|b| *b == 0xff));
            }
            for (offset, len) in calls.iter() {
                prop_assert!(offset + *len as u64 <= 0x20);
            }
        }
    }
}
