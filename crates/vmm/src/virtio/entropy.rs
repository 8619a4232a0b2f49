//! The entropy device (VIRTIO 1.2, section 5.4): random numbers from the host's kernel.

use std::io;
use std::sync::Arc;

use plimsoll_pmap::{GuestRam, Pmap};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::back::{Back, Broken, DeviceEvent, Progress};
use super::interrupt::Interrupt;
use super::ring::{Chain, Ring};
use super::worker::Worker;
use super::{Activation, DeviceKind, NoticeSink, VirtioDevice, feature};

/// Linux keeps one request outstanding.
const QUEUE_SIZES: &[u16] = &[16];
/// Random bytes for one request. Drivers ask for some tens at a time; the more, the longer one
/// notification may take.
const MAX_REQUEST: usize = 4096;

/// The front of the entropy device.
pub struct Entropy {
    worker: Worker,
}

impl Entropy {
    /// A device that writes to `memory`. `name` is for its thread and in notices.
    ///
    /// # Errors
    /// No file descriptor or no thread left.
    pub fn new(name: &str, memory: &Arc<Pmap>, notices: NoticeSink) -> io::Result<Self> {
        let back = EntropyBack { memory: memory.ram().clone(), active: None };
        Ok(Self { worker: Worker::spawn(name.to_owned(), back, notices)? })
    }
}

impl VirtioDevice for Entropy {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Entropy
    }

    fn features(&self) -> u64 {
        feature::COMMON
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
}

struct EntropyBack {
    memory: GuestRam,
    active: Option<(Ring, Interrupt)>,
}

impl Back for EntropyBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        if let Some(queue) = activation.queues[0].take() {
            self.active = Some((Ring::new(0, queue, &*self.memory)?, activation.interrupt));
        }
        Ok(())
    }

    fn serve(&mut self, _event: DeviceEvent) -> Result<Progress, Broken> {
        let Some((ring, interrupt)) = &mut self.active else { return Ok(Progress::Done) };
        ring.serve_each(&*self.memory, interrupt, |chain| fill(&self.memory, chain))
    }

    fn stop(&mut self) {
        self.active = None;
    }
}

fn fill(memory: &GuestRam, chain: &Chain) -> Result<u32, Broken> {
    let wanted = usize::try_from(chain.writable.len()).unwrap_or(usize::MAX);
    let mut random = [0; MAX_REQUEST];
    let random = &mut random[..wanted.min(MAX_REQUEST)];
    let mut done = 0;
    while done < random.len() {
        match getrandom(&mut random[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            // A kernel without random numbers: fewer is an answer that drivers understand, zeros
            // would not be one.
            Err(_) => break,
        }
    }
    let written = chain.writable.write(&**memory, &random[..done])?;
    u32::try_from(written).map_err(|_| Broken::Layout)
}

#[cfg(test)]
mod tests;
