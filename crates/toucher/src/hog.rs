//! The greedy process: it touches memory without end until its kernel ends it.

use std::io;
use std::sync::atomic::Ordering;

use crate::libc_memory::Mapping;
use crate::libc_power::{self, End};
use crate::pattern::{self, PAGE};

/// Bytes that the hog takes at a time: small against any guest, so that the count is close to what
/// it got.
const STEP: usize = 1 << 20;

/// Runs the hog in a child process until it dies; returns how, and the bytes that it had touched.
pub(crate) fn run() -> io::Result<(End, u64)> {
    let touched = Mapping::shared(PAGE)?;
    let end = libc_power::in_child(|| take_all(&touched))?;
    Ok((end, touched.counters()[0].load(Ordering::Relaxed)))
}

/// Takes memory until none is left, and keeps it.
fn take_all(touched: &Mapping) {
    std::fs::write("/proc/self/oom_score_adj", "1000").ok(); // The kernel's first choice; without it still the largest.
    let mut held = Vec::new();
    while let Ok(mut memory) = Mapping::anonymous(STEP) {
        for (index, page) in memory.words_mut().chunks_exact_mut(pattern::words()).enumerate() {
            pattern::fill(page, held.len() as u64, index as u64);
        }
        held.push(memory);
        touched.counters()[0].fetch_add(STEP as u64, Ordering::Relaxed);
    }
}
