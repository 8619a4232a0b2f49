/// Length of a function's configuration space. No function here has an extended one.
const LENGTH: usize = 256;
/// Where capabilities begin.
const FIRST_CAPABILITY: usize = 0x40;

/// Offsets in a function's configuration space (PCI Local Bus 3.0, section 6.1).
pub(crate) mod offset {
    pub(crate) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    pub(super) const CACHE_LINE: usize = 0x0c;
    pub(super) const HEADER_TYPE: usize = 0x0e;
    pub(crate) const BAR: usize = 0x10;
    pub(super) const SUBSYSTEM: usize = 0x2c;
    pub(crate) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
}

/// In the command register: the function answers at its BAR.
const MEMORY_SPACE: u16 = 1 << 1;
/// What else can be set in the command register: bus master (kept, and not enforced: the device
/// obeys its virtio status), and interrupt disable, though there is no pin.
const COMMAND_KEPT: u16 = 1 << 2 | 1 << 10;
/// In the status register: there are capabilities.
const HAS_CAPABILITIES: u16 = 1 << 4;
/// In the header type: the slot may have further functions. Always set, so that guests look for
/// them, and names made of slot and function stay when one is added.
const MULTIFUNCTION: u8 = 1 << 7;
/// In a BAR: 64 bits wide, in memory, and reads may have effects.
const MEMORY_64: u8 = 0b100;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    /// Base class, subclass, programming interface.
    pub(crate) class: [u8; 3],
    pub(crate) revision: u8,
    pub(crate) subsystem: u16,
}

/// The configuration space of one function: bytes, of which some can be written.
pub(crate) struct ConfigSpace {
    bytes: [u8; LENGTH],
    /// The bits that a guest can write.
    writable: [u8; LENGTH],
    /// What it is after a reset.
    initial: [u8; LENGTH],
    /// Where the next capability begins, and the byte that links it.
    end: usize,
    link: usize,
}

impl ConfigSpace {
    /// The configuration space of a function without a BAR and without capabilities.
    pub(crate) fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; LENGTH],
            writable: [0; LENGTH],
            initial: [0; LENGTH],
            end: FIRST_CAPABILITY,
            link: offset::CAPABILITIES,
        };
        let [base, sub, interface] = identity.class;
        space.put(0, &identity.vendor.to_le_bytes());
        space.put(2, &identity.device.to_le_bytes());
        space.put(offset::REVISION, &[identity.revision, interface, sub, base]);
        space.put(offset::HEADER_TYPE, &[MULTIFUNCTION]);
        space.put(offset::SUBSYSTEM, &identity.vendor.to_le_bytes());
        space.put(offset::SUBSYSTEM + 2, &identity.subsystem.to_le_bytes());
        // Words that guests keep here for themselves.
        space.writable[offset::CACHE_LINE] = 0xff;
        space.writable[offset::INTERRUPT_LINE] = 0xff;
        space
    }

    /// Gives it a memory BAR of `len` bytes, a power of two of 16 at least, that begins at `base`,
    /// a multiple of that.
    pub(crate) fn add_bar(&mut self, base: u64, len: u64) {
        debug_assert!(len.is_power_of_two() && len >= 16 && base.is_multiple_of(len));
        self.put(offset::BAR, &base.to_le_bytes());
        self.bytes[offset::BAR] |= MEMORY_64;
        self.initial[offset::BAR] |= MEMORY_64;
        // So a guest that writes ones reads the length.
        self.allow(offset::BAR, &(!(len - 1)).to_le_bytes());
        self.allow(offset::COMMAND, &(MEMORY_SPACE | COMMAND_KEPT).to_le_bytes());
    }

    /// Adds a capability: `body` follows its number and its link. Returns where it begins.
    pub(crate) fn add_capability(&mut self, number: u8, body: &[u8]) -> usize {
        let at = self.end;
        self.put(at, &[number, 0]);
        self.put(at + 2, body);
        #[expect(clippy::cast_possible_truncation, reason = "configuration space has 256 bytes")]
        self.put(self.link, &[at as u8]);
        self.put(offset::STATUS, &HAS_CAPABILITIES.to_le_bytes());
        self.link = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Lets guests write the bits of `mask` from `at` on.
    pub(crate) fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Reads from `at`; zeros beyond the end.
    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(at + index).copied().unwrap_or(0);
        }
    }

    /// Writes what can be written from `at` on.
    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        for (index, new) in data.iter().enumerate() {
            let Some(mask) = self.writable.get(at + index) else { return };
            let byte = &mut self.bytes[at + index];
            *byte = *byte & !mask | new & mask;
        }
    }

    /// The `N` bytes at `at`, which are within configuration space.
    pub(crate) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(at, &mut bytes);
        bytes
    }

    /// Where the BAR begins, while the function decodes memory.
    pub(crate) fn bar(&self) -> Option<u64> {
        let decodes = u16::from_le_bytes(self.bytes(offset::COMMAND)) & MEMORY_SPACE != 0;
        decodes.then(|| u64::from_le_bytes(self.bytes(offset::BAR)) & !0xf)
    }

    /// Back to the state after creation.
    pub(crate) fn reset(&mut self) {
        self.bytes = self.initial;
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.initial[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1044,
            class: [0, 0xff, 0],
            revision: 1,
            subsystem: 0x44,
        });
        space.add_bar(0xd000_8000, 0x8000);
        space
    }

    fn word(space: &ConfigSpace, at: usize) -> u32 {
        u32::from_le_bytes(space.bytes(at))
    }

    #[test]
    fn a_guest_finds_out_how_long_the_bar_is_and_moves_it() {
        let mut space = space();
        assert_eq!((word(&space, 0), word(&space, offset::BAR)), (0x1044_1af4, 0xd000_8004));
        assert_eq!(space.bar(), None, "it does not decode yet");
        space.write(offset::BAR, &[0xff; 4]);
        space.write(offset::BAR + 4, &[0xff; 4]);
        assert_eq!((word(&space, offset::BAR), word(&space, offset::BAR + 4)), (0xffff_8004, u32::MAX));
        space.write(offset::BAR, &0xd123_4567_u32.to_le_bytes());
        space.write(offset::BAR + 4, &[0; 4]);
        space.write(offset::COMMAND, &[0xff, 0xff]);
        assert_eq!(space.bar(), Some(0xd123_0000));
        assert_eq!(word(&space, offset::COMMAND), 0x0406);
        space.reset();
        assert_eq!((word(&space, offset::BAR), space.bar()), (0xd000_8004, None));
    }

    #[test]
    fn capabilities_are_linked_in_order() {
        let mut space = space();
        let bodies: [&[u8]; 3] = [&[1; 10], &[2; 14], &[3; 18]];
        let places = bodies.map(|body| space.add_capability(body[0], body));
        let mut at = usize::from(space.bytes::<1>(offset::CAPABILITIES)[0]);
        for (place, body) in places.iter().zip(bodies) {
            assert_eq!((at, space.bytes::<1>(at)[0]), (*place, body[0]));
            assert!(at.is_multiple_of(4));
            at = space.bytes::<1>(at + 1)[0].into();
        }
        assert_eq!(at, 0);
        assert_eq!(word(&space, offset::COMMAND) >> 16, 0x10);
    }

    proptest! {
        #[test]
        fn nothing_but_what_is_allowed_changes(
            writes in prop::collection::vec((0usize..4200, prop::collection::vec(any::<u8>(), 1..9)), 0..50)
        ) {
            let mut space = space();
            space.add_capability(9, &[5; 14]);
            for (at, data) in writes {
                space.write(at, &data);
            }
            for at in 0..LENGTH {
                prop_assert_eq!(space.bytes[at] & !space.writable[at], space.initial[at] & !space.writable[at]);
            }
            prop_assert!(space.bar().is_none_or(|bar| bar.is_multiple_of(0x8000)));
        }
    }
}
