//! The keyboard of the model guest.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use plimsoll_sys::{Event, lock};

use crate::console::Keyboard;

/// Longest command line.
const MAX_LINE: usize = 256;

/// What was typed at the model's console.
pub(crate) struct Input {
    typed: Mutex<VecDeque<u8>>,
    arrived: Condvar,
    room: Event,
}

impl Input {
    /// Makes an empty input. `room` is signalled when there is room again.
    pub(crate) fn new(room: Event) -> Self {
        Self { typed: Mutex::default(), arrived: Condvar::new(), room }
    }

    /// The next line; one that is too long comes in parts.
    pub(super) fn line(&self) -> String {
        let mut typed = lock(&self.typed);
        loop {
            let end = typed.iter().position(|b| matches!(b, b'\n' | b'\r')).map(|at| at + 1);
            if let Some(end) = end.or((typed.len() >= MAX_LINE).then_some(MAX_LINE)) {
                let line: Vec<u8> = typed.drain(..end).collect();
                self.room.signal();
                return String::from_utf8_lossy(&line).into_owned();
            }
            typed = self.arrived.wait(typed).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Never returns: the model has ended, and its process is about to.
    pub(super) fn wait_forever(&self) -> ! {
        loop {
            thread::park();
        }
    }
}

impl Keyboard for Input {
    fn offer(&self, bytes: &[u8]) -> usize {
        let mut typed = lock(&self.typed);
        let taken = bytes.len().min(MAX_LINE.saturating_sub(typed.len()));
        typed.extend(&bytes[..taken]);
        self.arrived.notify_all();
        taken
    }
}
