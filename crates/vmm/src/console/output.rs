use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use plimsoll_sys::{Event, lock};

/// Most bytes that wait for the console thread. A guest writes one byte an exit, some 100 KB a
/// second, so the thread has half a second to fetch them. Smaller loses output on a busy host;
/// larger lets a guest hold VMM memory.
pub(super) const MAX_PENDING: usize = 64 * 1024;
/// Bytes that are kept to tell how a guest ended: a panic's report with its stack takes about 4
/// KiB.
const MAX_TAIL: usize = 16 * 1024;

/// Holds what the guest wrote to its console until the console thread fetches it. Writing never
/// blocks: what does not fit is lost, and the output says so.
#[derive(Debug)]
pub(crate) struct Output {
    state: Mutex<State>,
    ready: Event,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    lost: u64,
    tail: VecDeque<u8>,
}

impl Output {
    /// Makes an empty output.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), ready: Event::new()? })
    }

    /// Takes what the guest wrote.
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let fits = bytes.len().min(MAX_PENDING - state.pending.len());
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(&bytes[..fits]);
        state.lost += (bytes.len() - fits) as u64;
        let excess = (state.tail.len() + bytes.len()).saturating_sub(MAX_TAIL).min(state.tail.len());
        state.tail.drain(..excess);
        state.tail.extend(&bytes[bytes.len().saturating_sub(MAX_TAIL)..]);
        if was_empty {
            self.ready.signal();
        }
    }

    /// Fetches everything that waits, with a note on what was lost.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut state = lock(&self.state);
        self.ready.clear();
        let mut taken = std::mem::take(&mut state.pending);
        if state.lost > 0 {
            taken.extend_from_slice(
                format!("\r\n[plimsoll: {} bytes of output lost]\r\n", state.lost).as_bytes(),
            );
            state.lost = 0;
        }
        taken
    }

    /// Readable while something waits.
    pub(crate) fn ready(&self) -> &Event {
        &self.ready
    }

    /// The first line of a kernel panic, if the panic is the last that the kernel wrote. A kernel
    /// that restarts or powers off in order writes `reboot: ...` after it.
    ///
    /// The output of a program may interrupt that line. Then a later line tells of the panic: where
    /// the kernel was loaded, which the kernel writes at no other time.
    pub(crate) fn panic_line(&self) -> Option<String> {
        const PANIC: &str = "Kernel panic - not syncing";
        const WHERE: &str = "Kernel Offset: ";
        let tail: Vec<u8> = lock(&self.state).tail.iter().copied().collect();
        let tail = String::from_utf8_lossy(&tail);
        let (from, line) = match tail.find(PANIC) {
            Some(from) => (from, tail[from..].lines().next().unwrap_or(PANIC).trim()),
            None => (tail.find(WHERE)?, PANIC),
        };
        (!tail[from..].contains("reboot: ")).then(|| line.to_owned())
    }

    /// Forgets what the guest wrote before it was restarted.
    pub(crate) fn forget_tail(&self) {
        lock(&self.state).tail.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let output = Output::new().unwrap();
        output.write(&vec![b'x'; MAX_PENDING + 5]);
        let taken = output.take();
        assert!(taken.ends_with(b"[plimsoll: 5 bytes of output lost]\r\n"));
        assert!(output.take().is_empty());
        output.write(b"y");
        assert_eq!(output.take(), b"y");
    }

    #[test]
    fn a_panic_counts_only_as_the_last_word() {
        let output = Output::new().unwrap();
        output.write(b"boot\n");
        assert_eq!(output.panic_line(), None);
        output.write(b"[ 1.0] Kernel panic - not syncing: sysrq triggered crash\r\n[ 1.0] CPU: 0\r\n");
        assert_eq!(output.panic_line().unwrap(), "Kernel panic - not syncing: sysrq triggered crash");
        output.write(b"[ 9.0] reboot: Restarting system\r\n");
        assert_eq!(output.panic_line(), None);
    }

    #[test]
    fn a_panic_is_known_though_a_program_wrote_into_its_line() {
        let output = Output::new().unwrap();
        output.write(b"[    4.8] sysrq: Trigger a crash\r\n[ ok cra   4.9] Kernel panic - nosh\r\nt syncing: crash\r\n");
        assert_eq!(output.panic_line(), None);
        output.write(b"[    5.4]  </TASK>\r\n[    5.5] Kernel Offset: 0x9200000 from 0xffffffff81000000\r\n");
        assert_eq!(output.panic_line().unwrap(), "Kernel panic - not syncing");
        output.write(b"[    6.0] reboot: Restarting system\r\n");
        assert_eq!(output.panic_line(), None);
    }
}
