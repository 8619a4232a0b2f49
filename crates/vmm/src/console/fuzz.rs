//! A guest at its serial port, for a fuzzer: any access to its registers, and any output.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use plimsoll_sys::Event;

use super::output::MAX_PENDING;
use super::{Keyboard, Output, SerialPort};
use crate::bus::BusDevice;

/// Output that waits, as it should be.
#[derive(Default)]
struct Model {
    pending: Vec<u8>,
    lost: usize,
}

/// Lets `input` use a port and write output. Output comes out as it went in, with what was lost
/// counted, and the line of a panic is one line.
///
/// # Panics
/// It does not.
pub(crate) fn console(input: &[u8]) {
    let (output, room) = (Output::new(), Event::new());
    let (output, room) = (output.expect("descriptors are left"), room.expect("descriptors are left"));
    let ours = Output::new().expect("descriptors are left");
    let port = SerialPort::new(Arc::new(output), room).expect("descriptors are left");
    let (mut input, mut model) = (Unstructured::new(input), Model::default());
    while !input.is_empty() && step(&mut input, &port, &ours, &mut model).is_ok() {}
    model.take(&ours);
}

fn step(input: &mut Unstructured<'_>, port: &SerialPort, ours: &Output, model: &mut Model) -> Result<()> {
    match input.int_in_range(0..=15u8)? {
        0..=4 => port.write(input.int_in_range(0..=9)?, &[input.arbitrary()?]),
        5 | 6 => port.read(input.int_in_range(0..=9)?, &mut [0]),
        7 => {
            let length = input.int_in_range(0..=9)?;
            let mut data = input.bytes(length)?.to_vec();
            let offset = input.arbitrary()?;
            port.write(offset, &data);
            port.read(offset, &mut data);
        }
        8 | 9 => {
            let length = input.int_in_range(0..=80)?;
            let bytes = input.bytes(length)?;
            assert!(port.offer(bytes) <= bytes.len());
        }
        10 => port.reset(),
        11..=13 => {
            let length = input.int_in_range(0..=200)?;
            let bytes = input.bytes(length)?.repeat(1 << input.int_in_range(0..=9u8)?);
            ours.write(&bytes);
            model.write(&bytes);
        }
        14 => model.take(ours),
        _ => {
            let line = ours.panic_line();
            assert!(line.is_none_or(|line| !line.contains('\n')));
        }
    }
    Ok(())
}

impl Model {
    fn write(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(MAX_PENDING - self.pending.len());
        self.pending.extend(&bytes[..fits]);
        self.lost += bytes.len() - fits;
    }

    fn take(&mut self, output: &Output) {
        let mut expected = std::mem::take(&mut self.pending);
        if self.lost > 0 {
            expected.extend(format!("\r\n[plimsoll: {} bytes of output lost]\r\n", self.lost).bytes());
            self.lost = 0;
        }
        assert!(output.take() == expected, "output comes out as it went in");
    }
}
