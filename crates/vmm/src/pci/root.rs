use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use plimsoll_sys::lock;

use super::{ConfigSpace, Identity};
use crate::bus::BusDevice;

/// A function of the bus. One vCPU at a time calls it.
pub(crate) trait Function: Send {
    /// Fills `data` with configuration space from `offset`.
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// Writes configuration space at `offset`.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// The addresses at which the function wants to answer now; their number never changes.
    fn bar(&self) -> Option<Range<u64>>;
    /// The BAR is mapped at `base` from now on, or nowhere.
    fn map(&mut self, base: Option<u64>);
    /// Reads the BAR at `offset`.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]);
    /// Writes the BAR at `offset`.
    fn write_bar(&mut self, offset: u64, data: &[u8]);
    /// Back to the state after creation, its BAR mapped nowhere. May wait for I/O.
    fn reset(&mut self);
}

/// Bus 0 and the bridge that leads to it. A function's lock is held while it serves an access, and
/// taken before that of the map.
pub(crate) struct Root {
    bridge: ConfigSpace,
    functions: Vec<(u8, Mutex<Box<dyn Function>>)>,
    /// The addresses that BARs may have.
    window: Range<u64>,
    map: Mutex<Map>,
    /// The register of port 0xcf8.
    address: AtomicU32,
}

/// The BARs that are mapped, and the functions' numbers. They lie apart.
type Map = Vec<(Range<u64>, u8)>;

/// A host bridge without a driver: kernels look for its class before they trust the ports.
const BRIDGE: Identity = Identity {
    // Red Hat's number for a host bridge as QEMU has it.
    vendor: 0x1b36,
    device: 0x0008,
    class: [0x06, 0x00, 0x00],
    revision: 0,
    subsystem: 0,
};

/// Bytes of each function in the memory-mapped configuration space.
const ECAM_FUNCTION: u64 = 4096;
/// In the register of port 0xcf8: the data port leads to configuration space.
const ADDRESS_ENABLE: u32 = 1 << 31;

impl Root {
    /// A bus without functions, whose BARs may be anywhere in `window`.
    pub(crate) fn new(window: Range<u64>) -> Self {
        let (bridge, address) = (ConfigSpace::new(BRIDGE), AtomicU32::new(0));
        Self { bridge, functions: Vec::new(), window, map: Mutex::default(), address }
    }

    /// Puts `function` on the bus as number `number`: slot times eight and function, not 0 and not
    /// taken. Guests look for functions only in slots that have a function 0.
    pub(crate) fn add(&mut self, number: u8, function: Box<dyn Function>) {
        debug_assert!(number != 0 && self.find(number).is_none());
        self.functions.push((number, Mutex::new(function)));
    }

    /// Resets the functions and the bus. Waits for their I/O.
    pub(crate) fn reset(&self) {
        for (number, function) in &self.functions {
            let mut function = lock(function);
            function.reset();
            self.place(*number, &mut **function);
        }
        self.address.store(0, Ordering::SeqCst);
    }

    fn find(&self, number: u8) -> Option<&Mutex<Box<dyn Function>>> {
        self.functions.iter().find(|(other, _)| *other == number).map(|(_, function)| function)
    }

    /// Reads configuration space; ones where there is no function.
    fn read_config(&self, number: u8, offset: usize, data: &mut [u8]) {
        match self.find(number) {
            Some(function) => lock(function).read_config(offset, data),
            None if number == 0 => self.bridge.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes configuration space. The host bridge has nothing to write.
    fn write_config(&self, number: u8, offset: usize, data: &[u8]) {
        let Some(function) = self.find(number) else { return };
        let mut function = lock(function);
        function.write_config(offset, data);
        self.place(number, &mut **function);
    }

    /// Maps the BAR of a function where it wants to be, if it may be there.
    fn place(&self, number: u8, function: &mut dyn Function) {
        let wanted = function.bar();
        let base = {
            let mut map = lock(&self.map);
            let current = map.iter().position(|(_, other)| *other == number);
            if current.map(|at| &map[at].0) == wanted.as_ref() {
                return;
            }
            if let Some(at) = current {
                map.swap_remove(at);
            }
            let fits = |bar: &Range<u64>| {
                self.window.start <= bar.start
                    && bar.start < bar.end
                    && bar.end <= self.window.end
                    && map.iter().all(|(other, _)| bar.end <= other.start || other.end <= bar.start)
            };
            wanted.filter(fits).map(|bar| {
                let base = bar.start;
                map.push((bar, number));
                base
            })
        };
        function.map(base);
    }

    /// The function at whose BAR the whole access is, and where in it.
    fn at(&self, address: u64, len: usize) -> Option<(&Mutex<Box<dyn Function>>, u64)> {
        let end = address.checked_add(len as u64)?;
        let (start, number) = {
            let map = lock(&self.map);
            let (bar, number) = map.iter().find(|(bar, _)| bar.start <= address && end <= bar.end)?;
            (bar.start, *number)
        };
        Some((self.find(number)?, address - start))
    }

    /// The BARs that are mapped.
    #[cfg(test)]
    pub(crate) fn mapped(&self) -> Vec<Range<u64>> {
        lock(&self.map).iter().map(|(bar, _)| bar.clone()).collect()
    }
}

/// The memory-mapped configuration space of bus 0 (PCI Express 5.0, section 7.2.2).
pub(crate) struct Ecam(pub(crate) Arc<Root>);

impl Ecam {
    /// Its length: 256 functions.
    pub(crate) const LENGTH: u64 = 256 * ECAM_FUNCTION;

    /// The function and the offset of an access that lies in one function.
    fn split(offset: u64, len: usize) -> Option<(u8, usize)> {
        let within = offset % ECAM_FUNCTION;
        if within + len as u64 > ECAM_FUNCTION {
            return None;
        }
        Some((u8::try_from(offset / ECAM_FUNCTION).ok()?, usize::try_from(within).ok()?))
    }
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Self::split(offset, data.len()) {
            Some((number, at)) => self.0.read_config(number, at, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((number, at)) = Self::split(offset, data.len()) {
            self.0.write_config(number, at, data);
        }
    }
}

/// The ports of configuration mechanism 1 (PCI Local Bus 3.0, section 3.2.2.3.2): the address at
/// 0xcf8, which takes accesses of four bytes only, and the data at 0xcfc.
pub(crate) struct Ports(pub(crate) Arc<Root>);

impl Ports {
    /// How many ports there are.
    pub(crate) const LENGTH: u64 = 8;

    /// The function and the offset that the address register and a data port name.
    fn split(&self, port: u64) -> Option<(u8, usize)> {
        let address = self.0.address.load(Ordering::SeqCst);
        let [register, number, bus, _] = address.to_le_bytes();
        let within = usize::try_from(port.checked_sub(4)?).ok()?;
        (address & ADDRESS_ENABLE != 0 && bus == 0).then(|| (number, usize::from(register & !3) + within))
    }
}

impl BusDevice for Ports {
    fn read(&self, port: u64, data: &mut [u8]) {
        if let (0, Ok(word)) = (port, <&mut [u8; 4]>::try_from(&mut *data)) {
            *word = self.0.address.load(Ordering::SeqCst).to_le_bytes();
            return;
        }
        match self.split(port) {
            Some((number, at)) => self.0.read_config(number, at, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, port: u64, data: &[u8]) {
        if let (0, Ok(word)) = (port, <[u8; 4]>::try_from(data)) {
            self.0.address.store(u32::from_le_bytes(word), Ordering::SeqCst);
        } else if let Some((number, at)) = self.split(port) {
            self.0.write_config(number, at, data);
        }
    }

    fn width(&self) -> usize {
        4
    }
}

/// The addresses that BARs may have.
pub(crate) struct MemoryWindow(pub(crate) Arc<Root>);

impl BusDevice for MemoryWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.0.at(self.0.window.start + offset, data.len()) {
            Some((function, offset)) => lock(function).read_bar(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((function, offset)) = self.0.at(self.0.window.start + offset, data.len()) {
            lock(function).write_bar(offset, data);
        }
    }
}

#[cfg(test)]
mod tests;
