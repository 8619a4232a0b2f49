use std::io;
use std::sync::{Arc, Mutex};

use plimsoll_sys::{Event, lock};
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Keyboard, Output};
use crate::bus::BusDevice;

/// The guest's first serial port: a 16550A whose output never blocks the guest.
#[derive(Debug)]
pub(crate) struct SerialPort {
    uart: Mutex<Serial<Interrupt, FifoEmpty, Writer>>,
    interrupt: Arc<EventFd>,
    output: Arc<Output>,
    fifo_empty: Event,
}

/// Raises the port's interrupt line.
#[derive(Debug)]
struct Interrupt(Arc<EventFd>);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        match self.0.write(1) {
            // The counter is full: the interrupt is pending anyhow.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

/// Signals the console thread when the receive FIFO is empty again.
#[derive(Debug)]
struct FifoEmpty(Event);

impl SerialEvents for FifoEmpty {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.0.signal();
    }
}

#[derive(Debug)]
struct Writer(Arc<Output>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uart(
    interrupt: &Arc<EventFd>,
    fifo_empty: &Event,
    output: &Arc<Output>,
) -> Mutex<Serial<Interrupt, FifoEmpty, Writer>> {
    let (trigger, events) = (Interrupt(Arc::clone(interrupt)), FifoEmpty(fifo_empty.clone()));
    Mutex::new(Serial::with_events(trigger, events, Writer(Arc::clone(output))))
}

impl SerialPort {
    /// Makes a port in its state after power-on. `fifo_empty` is signalled whenever its receive
    /// FIFO becomes empty.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(crate) fn new(output: Arc<Output>, fifo_empty: Event) -> io::Result<Self> {
        let interrupt = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        Ok(Self { uart: uart(&interrupt, &fifo_empty, &output), interrupt, output, fifo_empty })
    }

    /// The descriptor that is written to interrupt the guest; to be connected to the port's line.
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Returns to the state after power-on. What was typed and not read is lost.
    pub(crate) fn reset(&self) {
        let fresh = uart(&self.interrupt, &self.fifo_empty, &self.output);
        *lock(&self.uart) = fresh.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.fifo_empty.signal();
    }
}

impl Keyboard for SerialPort {
    fn offer(&self, bytes: &[u8]) -> usize {
        // A port in loopback mode takes nothing: what is typed to it is lost, as on a real line.
        match lock(&self.uart).enqueue_raw_bytes(bytes) {
            Ok(0) => bytes.len(),
            Ok(n) => n,
            Err(_) => 0,
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            *byte = lock(&self.uart).read(register);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            // Fails only where the interrupt does: an event descriptor that we hold.
            lock(&self.uart).write(register, *byte).ok();
        }
    }
}
