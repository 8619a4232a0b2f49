use std::sync::atomic::{AtomicU8, Ordering};
use std::{io, sync::Arc};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::boot::acpi::{EVENT_POWER_BUTTON, RESET_VALUE, SLEEP_TYPE_OFF};
use crate::bus::BusDevice;
use crate::guest_event::{GuestEvent, Teller};

/// Sleep control, sleep status and reset: the registers from [`crate::boot::layout::POWER_PORT`]
/// on.
#[derive(Debug)]
pub(crate) struct PowerRegisters(pub(crate) Teller);

/// The bit of the sleep control register that starts the transition (ACPI 6.4, table 4.19), and
/// where the sleep type begins.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;

impl BusDevice for PowerRegisters {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let event = match (offset, data.first()) {
            (0, Some(value)) if *value == SLEEP_ENABLE | SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT => {
                GuestEvent::Off
            }
            (2, Some(value)) if *value == RESET_VALUE => GuestEvent::Reset,
            _ => return,
        };
        self.0.tell(event);
    }
}

/// A PC's keyboard controller, as far as operating systems use it to reset the machine.
#[derive(Debug)]
pub(crate) struct KeyboardController(pub(crate) Teller);

impl BusDevice for KeyboardController {
    fn read(&self, _: u64, data: &mut [u8]) {
        // Both buffers are empty: a guest that waits for room to send the reset command finds it.
        data.fill(0);
    }

    fn write(&self, _: u64, data: &[u8]) {
        const PULSE_RESET_LINE: u8 = 0xfe;
        if data == [PULSE_RESET_LINE] {
            self.0.tell(GuestEvent::Reset);
        }
    }
}

/// pvpanic (QEMU's `docs/specs/pvpanic.rst`): the guest's kernel says that it panicked.
#[derive(Debug)]
pub(crate) struct PanicDevice(pub(crate) Teller);

impl BusDevice for PanicDevice {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(PANICKED);
    }

    fn write(&self, _: u64, data: &[u8]) {
        if data.first().is_some_and(|value| value & PANICKED != 0) {
            self.0.tell(GuestEvent::Panicked);
        }
    }
}

/// The only event that is offered. With the event for crash kernels, one would take over silently.
const PANICKED: u8 = 1;

/// The event device: its register of pending events, cleared by being read, and its interrupt.
#[derive(Clone, Debug)]
pub(crate) struct EventDevice(Arc<Pending>);

#[derive(Debug)]
struct Pending {
    events: AtomicU8,
    interrupt: EventFd,
}

impl EventDevice {
    /// Makes a device without a pending event.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        let interrupt = EventFd::new(EFD_NONBLOCK)?;
        Ok(Self(Arc::new(Pending { events: AtomicU8::new(0), interrupt })))
    }

    /// The descriptor that is written to interrupt the guest; to be connected to the device's line.
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.0.interrupt
    }

    /// Presses the power button.
    pub(crate) fn press_power_button(&self) {
        self.0.events.fetch_or(EVENT_POWER_BUTTON, Ordering::SeqCst);
        self.0.interrupt.write(1).ok(); // A full counter interrupts as well.
    }

    /// Forgets what is pending.
    pub(crate) fn reset(&self) {
        self.0.events.store(0, Ordering::SeqCst);
    }
}

impl BusDevice for EventDevice {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(self.0.events.swap(0, Ordering::SeqCst));
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_event::channel;

    #[test]
    fn off_reset_and_panic_are_told_apart() {
        let (send, receive) = channel();
        let power = PowerRegisters(send.clone());
        for offset in 0..3 {
            for value in 0..=255 {
                power.write(offset, &[value]);
            }
        }
        PanicDevice(send.clone()).write(0, &[1]);
        PanicDevice(send.clone()).write(0, &[2]);
        KeyboardController(send).write(0, &[0xfe]);
        let events: Vec<_> = receive.iter().take(4).collect();
        assert_eq!(events, [GuestEvent::Off, GuestEvent::Reset, GuestEvent::Panicked, GuestEvent::Reset]);
        assert!(receive.try_recv().is_err());
    }

    #[test]
    fn a_press_is_seen_once() {
        let device = EventDevice::new().unwrap();
        device.press_power_button();
        device.interrupt().read().unwrap();
        let mut byte = [0];
        device.read(0, &mut byte);
        assert_eq!(byte, [EVENT_POWER_BUTTON]);
        device.read(0, &mut byte);
        assert_eq!(byte, [0]);
    }
}
