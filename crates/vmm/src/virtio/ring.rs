//! A device's end of a virtqueue: takes chains of buffers from the driver, checks them against the
//! rules, and gives them back used.
//!
//! What breaks a queue, each as VIRTIO 1.2, section 2.7 forbids it to drivers: an available index
//! that runs ahead by more than the queue's size, a head or next index outside the table, a chain
//! that loops or is longer than the queue, a table within a table, a readable buffer behind a
//! writable one, and anything outside of guest memory.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use super::back::{Broken, Progress};
use super::interrupt::Interrupt;

/// A queue that the driver made ready, its rings within guest memory.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    /// The queue's number.
    number: usize,
    /// The used index, and what it was at the last interrupt.
    used: Wrapping<u16>,
    announced: Wrapping<u16>,
}

/// In the available ring's flags: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;

impl Ring {
    /// Takes over `queue`, the device's queue of this number.
    ///
    /// # Errors
    /// Its rings are not in guest memory.
    pub(super) fn new(number: usize, queue: Queue, memory: &impl GuestMemory) -> Result<Self, Broken> {
        // Virtio-queue takes a ring at address zero for a missing one.
        if queue.avail_ring() == 0 || !queue.is_valid(memory) {
            return Err(Broken::Rings);
        }
        Ok(Self { queue, number, used: Wrapping(0), announced: Wrapping(0) })
    }

    /// The queue's size: the most chains that can be outstanding.
    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next chain that the driver made available, if any.
    pub(super) fn pop(&mut self, memory: &impl GuestMemory) -> Result<Option<Chain>, Broken> {
        let size = self.queue.size();
        let available = self.queue.avail_idx(memory, Ordering::Acquire).map_err(|_| Broken::Memory)?;
        if available.0 == self.queue.next_avail() {
            return Ok(None);
        }
        let mut chains = self.queue.iter(memory).map_err(|_| Broken::AvailableIndex)?;
        // The driver may have taken the index back meanwhile. Then there is no chain.
        let Some(chain) = chains.next() else { return Ok(None) };
        Chain::new(chain, size, memory).map(Some)
    }

    /// Gives chains back to the driver: the head of each and the bytes written to it. The driver
    /// sees either all of them or none yet.
    pub(super) fn push(&mut self, memory: &impl GuestMemory, chains: &[(u16, u32)]) -> Result<(), Broken> {
        let ring = self.queue.used_ring();
        for &(head, written) in chains {
            // Sums cannot overflow: the ring was found to lie within memory.
            let at = ring + 4 + 8 * u64::from(self.used.0 % self.queue.size());
            let element = u64::from(head) | u64::from(written) << 32;
            memory.write_slice(&element.to_le_bytes(), GuestAddress(at)).map_err(|_| Broken::Memory)?;
            self.used += 1;
        }
        memory
            .store(self.used.0.to_le(), GuestAddress(ring + 2), Ordering::Release)
            .map_err(|_| Broken::Memory)
    }

    /// Interrupts the driver if something was pushed since the last call and the driver wants to be
    /// told (VIRTIO 1.2, section 2.7.7).
    pub(super) fn notify(&mut self, memory: &impl GuestMemory, interrupt: &Interrupt) -> Result<(), Broken> {
        if self.used == self.announced {
            return Ok(());
        }
        // The driver looks for used buffers after it has said what it wants: so the buffers must be
        // visible before this looks at what it wants.
        fence(Ordering::SeqCst);
        let ring = self.queue.avail_ring();
        let load =
            |offset| memory.load::<u16>(GuestAddress(ring + offset), Ordering::Relaxed).map(u16::from_le);
        let wanted = if self.queue.event_idx_enabled() {
            let event = load(4 + 2 * u64::from(self.queue.size())).map_err(|_| Broken::Memory)?;
            self.used - Wrapping(event) - Wrapping(1) < self.used - self.announced
        } else {
            load(0).map_err(|_| Broken::Memory)? & NO_INTERRUPT == 0
        };
        self.announced = self.used;
        if wanted {
            interrupt.used_buffer(self.number);
        }
        Ok(())
    }

    /// Asks the driver to notify of the next chain. Returns whether one has come already.
    pub(super) fn rearm(&mut self, memory: &impl GuestMemory) -> Result<bool, Broken> {
        self.queue.enable_notification(memory).map_err(|_| Broken::Memory)
    }

    /// Gives every available chain to `serve`, which returns the bytes that it wrote, and then back
    /// to the driver. Serves at most as many chains as the queue is long.
    pub(super) fn serve_each(
        &mut self,
        memory: &impl GuestMemory,
        interrupt: &Interrupt,
        mut serve: impl FnMut(&Chain) -> Result<u32, Broken>,
    ) -> Result<Progress, Broken> {
        for _ in 0..self.size() {
            let Some(chain) = self.pop(memory)? else { break };
            let written = serve(&chain)?;
            self.push(memory, &[(chain.head, written)])?;
        }
        self.notify(memory, interrupt)?;
        Ok(if self.rearm(memory)? { Progress::More } else { Progress::Done })
    }
}

/// A run of buffers in guest memory, in the driver's order, all of it within guest memory when it
/// was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    spans: Vec<Span>,
}

#[cfg(test)]
impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        Self { spans: spans.into_iter().collect() }
    }
}

/// One buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) address: GuestAddress,
    pub(super) len: u32,
}

/// A chain of buffers from the driver.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Its number when it is given back.
    pub(super) head: u16,
    /// The buffers that the device reads.
    pub(super) readable: Spans,
    /// The buffers that the device writes.
    pub(super) writable: Spans,
}

impl Chain {
    fn new<M: GuestMemory>(
        chain: virtio_queue::DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
    ) -> Result<Self, Broken> {
        let mut made =
            Self { head: chain.head_index(), readable: Spans::default(), writable: Spans::default() };
        let mut complete = false;
        let mut count = 0;
        for descriptor in chain {
            count += 1;
            if count > queue_size {
                return Err(Broken::Chain);
            }
            complete = !descriptor.has_next();
            let span = Span { address: descriptor.addr(), len: descriptor.len() };
            let access = if descriptor.is_write_only() { Permissions::Write } else { Permissions::Read };
            if span.len == 0 {
                continue;
            }
            let len = usize::try_from(span.len).map_err(|_| Broken::Address)?;
            if !memory.check_range(span.address, len, access) {
                return Err(Broken::Address);
            }
            match access {
                Permissions::Write => made.writable.spans.push(span),
                _ if !made.writable.spans.is_empty() => return Err(Broken::Order),
                _ => made.readable.spans.push(span),
            }
        }
        // The iterator ends early, without an error, where the chain is cut, loops or leads outside
        // its table.
        if complete { Ok(made) } else { Err(Broken::Chain) }
    }
}

impl Spans {
    /// Bytes in all of them. A chain has fewer than 2^32.
    pub(super) fn len(&self) -> u32 {
        self.spans.iter().map(|span| span.len).sum()
    }

    /// The buffers.
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().copied()
    }

    /// Divides them after `at` bytes; `None` where there are fewer.
    pub(super) fn split(&self, at: u32) -> Option<(Self, Self)> {
        let mut left = at;
        let (mut front, mut back) = (Self::default(), Self::default());
        for span in self.iter() {
            let taken = span.len.min(left);
            left -= taken;
            if taken > 0 {
                front.spans.push(Span { len: taken, ..span });
            }
            if taken < span.len {
                let address = GuestAddress(span.address.0 + u64::from(taken));
                back.spans.push(Span { address, len: span.len - taken });
            }
        }
        (left == 0).then_some((front, back))
    }

    /// Copies their beginning to `to`, and returns how many bytes there were to copy.
    pub(super) fn read(&self, memory: &impl GuestMemory, to: &mut [u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for span in self.iter() {
            let rest = &mut to[done..];
            let count = rest.len().min(usize::try_from(span.len).map_err(|_| Broken::Address)?);
            if count == 0 {
                break;
            }
            memory.read_slice(&mut rest[..count], span.address).map_err(|_| Broken::Memory)?;
            done += count;
        }
        Ok(done)
    }

    /// Copies `from` to their beginning, and returns how many bytes found room.
    pub(super) fn write(&self, memory: &impl GuestMemory, from: &[u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for span in self.iter() {
            let rest = &from[done..];
            let count = rest.len().min(usize::try_from(span.len).map_err(|_| Broken::Address)?);
            if count == 0 {
                break;
            }
            memory.write_slice(&rest[..count], span.address).map_err(|_| Broken::Memory)?;
            done += count;
        }
        Ok(done)
    }
}
