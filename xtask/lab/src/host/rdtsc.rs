//! The processor's time-stamp counter.

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough that what two readings of the clock take is far below a thousandth of it.
const SPAN: Duration = Duration::from_millis(100);
/// A reading that took longer than this was interrupted between its two halves.
const TIGHT: Duration = Duration::from_micros(20);

/// The counter's frequency, in kHz.
pub(super) fn khz() -> u64 {
    let (ticks, begin) = reading();
    thread::sleep(SPAN);
    let (later, end) = reading();
    let nanoseconds = end.duration_since(begin).as_nanos().max(1);
    let khz = u128::from(later.wrapping_sub(ticks)) * 1_000_000 / nanoseconds;
    u64::try_from(khz).unwrap_or(u64::MAX)
}

/// The counter and the clock at the same moment.
fn reading() -> (u64, Instant) {
    loop {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has the instruction; it reads a counter and touches no
        // memory.
        let ticks = unsafe { _rdtsc() };
        let after = Instant::now();
        if after.duration_since(before) < TIGHT {
            return (ticks, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts_as_fast_as_some_processor() {
        let khz = khz();
        assert!((500_000..10_000_000).contains(&khz), "{khz} kHz");
    }
}
