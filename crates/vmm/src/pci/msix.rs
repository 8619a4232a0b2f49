use std::io;
use std::sync::{Arc, Mutex};

use plimsoll_sys::lock;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Wiring;

/// Bytes of a table entry: address, data, control.
const ENTRY: u64 = 16;
/// In an entry's control word: the vector is masked.
const MASKED: u32 = 1;
/// The addresses at which messages are interrupts: the local APICs' (Intel SDM, volume 3, section
/// 11.11.1).
const LOCAL_APICS: u32 = 0xfee0_0000;

/// A message that is an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The address, whose upper half is zero: it names processors.
    pub(crate) address: u32,
    /// The data: the vector and how it is delivered.
    pub(crate) data: u32,
}

/// A function's interrupts by messages (PCI Local Bus 3.0, section 6.8.2): the table, the pending
/// bits, and one eventfd a vector, which KVM turns into the vector's message.
///
/// A message to an address that is no local APIC's is lost. A vector that is raised while it or the
/// function is masked becomes pending, and is sent when neither is any more.
pub(crate) struct Msix {
    state: Mutex<State>,
    events: Vec<EventFd>,
    first_line: u32,
    wiring: Arc<dyn Wiring>,
}

struct State {
    enabled: bool,
    masked: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// As the guest reads it: address, its upper half, data, control.
    words: [u32; 4],
    pending: bool,
    /// What its line sends now.
    routed: Option<Message>,
}

impl Entry {
    const NEW: Self = Self { words: [0, 0, 0, MASKED], pending: false, routed: None };

    fn is_masked(&self) -> bool {
        self.words[3] & MASKED != 0
    }

    fn message(&self) -> Option<Message> {
        let [address, upper, data, _] = self.words;
        (upper == 0 && address & 0xfff0_0000 == LOCAL_APICS).then_some(Message { address, data })
    }
}

impl Msix {
    /// Interrupts of `vectors` vectors, which are lines `first_line` on of `wiring`.
    ///
    /// # Errors
    /// No file descriptors left.
    pub(crate) fn new(vectors: u16, first_line: u32, wiring: Arc<dyn Wiring>) -> io::Result<Self> {
        let events: io::Result<_> = (0..vectors).map(|_| EventFd::new(EFD_NONBLOCK)).collect();
        let entries = vec![Entry::NEW; vectors.into()];
        let state = Mutex::new(State { enabled: false, masked: false, entries });
        Ok(Self { state, events: events?, first_line, wiring })
    }

    /// Each vector's line and the eventfd to connect to it.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u32, &EventFd)> {
        (self.first_line..).zip(&self.events)
    }

    /// Whether there is a vector of this number.
    pub(crate) fn has(&self, vector: u16) -> bool {
        usize::from(vector) < self.events.len()
    }

    /// Sends the message of `vector`, if there is such a vector, or keeps it pending.
    pub(crate) fn raise(&self, vector: u16) {
        let mut state = lock(&self.state);
        let State { enabled, masked, entries } = &mut *state;
        let Some(entry) = entries.get_mut(usize::from(vector)) else { return };
        if !*enabled {
            return;
        }
        entry.pending = true;
        if !*masked {
            self.settle(vector.into(), entry);
        }
    }

    /// Takes the capability's control: whether messages are sent at all, and whether all vectors
    /// are masked.
    pub(crate) fn control(&self, enabled: bool, masked: bool) {
        let mut state = lock(&self.state);
        if (state.enabled, state.masked) == (enabled, masked) {
            return;
        }
        (state.enabled, state.masked) = (enabled, masked);
        if enabled && !masked {
            for (index, entry) in state.entries.iter_mut().enumerate() {
                self.settle(index, entry);
            }
        }
    }

    /// Reads the table from `offset`: whole words, or zeros.
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((index, word)) = place(offset, data.len()) else { return };
        let state = lock(&self.state);
        let Some(entry) = state.entries.get(index) else { return };
        for (bytes, word) in data.chunks_mut(4).zip(&entry.words[word..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Writes the table at `offset`. What is no whole word of it is ignored.
    pub(crate) fn write_table(&self, offset: u64, data: &[u8]) {
        let Some((index, word)) = place(offset, data.len()) else { return };
        let mut state = lock(&self.state);
        let sends = state.enabled && !state.masked;
        let Some(entry) = state.entries.get_mut(index) else { return };
        for (at, bytes) in (word..).zip(data.chunks(4)) {
            let value = bytes.try_into().map_or(0, u32::from_le_bytes);
            entry.words[at] = match at {
                0 => value & !0b11,
                3 => value & MASKED,
                _ => value,
            };
        }
        if sends {
            self.settle(index, entry);
        }
    }

    /// Reads the pending bits from `offset`.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.state);
        for (at, byte) in (offset..).zip(data) {
            let vectors = usize::try_from(at * 8).unwrap_or(usize::MAX)..;
            let bits = vectors.take(8).map(|vector| state.entries.get(vector).is_some_and(|e| e.pending));
            *byte = bits.enumerate().fold(0, |byte, (bit, pending)| byte | u8::from(pending) << bit);
        }
    }

    /// Back to the state after creation.
    pub(crate) fn reset(&self) {
        let mut state = lock(&self.state);
        (state.enabled, state.masked) = (false, false);
        for ((line, event), entry) in self.lines().zip(&mut state.entries) {
            if entry.routed.is_some() {
                self.wiring.route(line, None);
            }
            // EAGAIN from an empty counter is fine.
            event.read().ok();
            *entry = Entry::NEW;
        }
    }

    /// Makes the line of an entry send its message, and sends what is pending, unless the entry is
    /// masked. The function is not.
    fn settle(&self, index: usize, entry: &mut Entry) {
        if entry.is_masked() {
            return;
        }
        let message = entry.message();
        let Some((line, event)) = self.lines().nth(index) else { return };
        if entry.routed != message {
            self.wiring.route(line, message);
            entry.routed = message;
        }
        if std::mem::take(&mut entry.pending) {
            // Fails only when the counter is full, and then the message is sent anyway.
            event.write(1).ok();
        }
    }
}

/// The entry and the word in it that an access of `len` bytes at `offset` begins with.
fn place(offset: u64, len: usize) -> Option<(usize, usize)> {
    let is_whole = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    let index = usize::try_from(offset / ENTRY).ok()?;
    let word = usize::try_from(offset % ENTRY / 4).ok()?;
    is_whole.then_some((index, word))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Record;
    use super::*;

    fn msix() -> (Msix, Arc<Record>) {
        let record = Arc::new(Record::default());
        (Msix::new(3, 24, Arc::clone(&record) as _).unwrap(), record)
    }

    fn program(msix: &Msix, vector: u64, address: u64, data: u32) {
        msix.write_table(16 * vector, &address.to_le_bytes());
        msix.write_table(16 * vector + 8, &data.to_le_bytes());
    }

    fn mask(msix: &Msix, vector: u64, masked: u32) {
        msix.write_table(16 * vector + 12, &masked.to_le_bytes());
    }

    /// How often vector `vector` was sent since the last look.
    fn sent(msix: &Msix, vector: usize) -> u64 {
        msix.events[vector].read().unwrap_or(0)
    }

    fn pending(msix: &Msix) -> u64 {
        let mut bits = [0; 8];
        msix.read_pending(0, &mut bits);
        u64::from_le_bytes(bits)
    }

    #[test]
    fn a_vector_that_is_programmed_and_unmasked_sends_its_message() {
        let (msix, record) = msix();
        program(&msix, 1, 0xfee0_1000, 0x41);
        mask(&msix, 1, 0);
        msix.raise(1);
        assert_eq!((sent(&msix, 1), pending(&msix)), (0, 0), "messages are not enabled");
        msix.control(true, false);
        msix.raise(1);
        msix.raise(3);
        msix.raise(u16::MAX);
        assert_eq!((sent(&msix, 1), pending(&msix)), (1, 0));
        let message = Message { address: 0xfee0_1000, data: 0x41 };
        assert_eq!(record.routes(), [(25, message)]);
        msix.reset();
        assert_eq!(record.routes(), []);
        msix.control(true, false);
        msix.raise(1);
        assert_eq!(sent(&msix, 1), 0, "after a reset it is masked");
    }

    #[test]
    fn masked_vectors_wait_and_are_sent_once() {
        let (msix, _) = msix();
        msix.control(true, true);
        for vector in 0..3 {
            program(&msix, vector, 0xfee0_0000, 0x30);
            mask(&msix, vector, u32::from(vector == 2));
            msix.raise(u16::try_from(vector).unwrap());
            msix.raise(u16::try_from(vector).unwrap());
        }
        assert_eq!((sent(&msix, 0), sent(&msix, 2), pending(&msix)), (0, 0, 0b111));
        msix.control(true, false);
        assert_eq!((sent(&msix, 0), sent(&msix, 1), sent(&msix, 2), pending(&msix)), (1, 1, 0, 0b100));
        mask(&msix, 2, 0);
        assert_eq!((sent(&msix, 2), pending(&msix)), (1, 0));
    }

    #[test]
    fn a_message_to_no_processor_is_lost() {
        let (msix, record) = msix();
        msix.control(true, false);
        mask(&msix, 0, 0);
        for address in [0, 0x10_0000, 0xfed0_0000, 0xfef0_0000, 0x1_fee0_0000, u64::MAX] {
            program(&msix, 0, address, 0x41);
            msix.raise(0);
            assert_eq!(record.routes(), [], "{address:#x}");
        }
        program(&msix, 0, 0xfeef_f000, 0x41);
        assert_eq!(record.routes().len(), 1);
        program(&msix, 0, 0, 0x41);
        assert_eq!(record.routes(), [], "the route before it is gone");
    }

    #[test]
    fn the_table_is_read_and_written_by_whole_words() {
        let (msix, _) = msix();
        program(&msix, 2, 0xfee0_1003, 7);
        let mut entry = [0; 8];
        msix.read_table(32, &mut entry);
        assert_eq!(u64::from_le_bytes(entry), 0xfee0_1000);
        msix.read_table(40, &mut entry);
        assert_eq!(u64::from_le_bytes(entry), 7 | 1 << 32);
        for (offset, len) in [(32, 1), (33, 4), (36, 8), (32, 2), (48, 4), (u64::MAX - 3, 4)] {
            msix.write_table(offset, &vec![0xff; len]);
            let mut data = vec![0xff; len];
            msix.read_table(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0), "{offset:#x} {len}");
        }
        msix.read_table(32, &mut entry);
        assert_eq!(u64::from_le_bytes(entry), 0xfee0_1000);
    }
}
