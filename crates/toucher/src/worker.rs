//! The worker: a process that touches its memory again and again, so that the guest has a working
//! set of known size.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::libc_memory::Mapping;
use crate::libc_power;
use crate::pattern::{PAGE, words};

/// Address space of the worker, more than any guest here has. What is not touched takes no memory.
const MOST: usize = 4 << 30;

/// Pages between two looks at what is wanted: soon enough for a step to be sharp, seldom enough to
/// cost nothing.
const STRIDE: usize = 256;

/// How long the worker rests at least after it has touched everything once: without work to do it
/// must not spin.
const REST: Duration = Duration::from_millis(50);

/// A worker, as its parent sees it. It ends with the guest.
pub(crate) struct Worker {
    shared: Mapping,
}

impl Worker {
    /// Starts it with nothing to touch.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Mapping::shared(PAGE)?;
        let memory = Mapping::anonymous(MOST)?;
        let pid = libc_power::child(|| work(memory, &shared))?;
        // When memory runs out, the kernel ends it before the program that reports on it.
        std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").ok(); // Without it it is still the largest.
        Ok(Self { shared })
    }

    /// From now on it touches the first `bytes` of its memory, and not the rest, which it keeps.
    /// Returns what that comes to in whole pages, at most [`MOST`].
    pub(crate) fn set(&self, bytes: usize) -> usize {
        let pages = bytes.min(MOST).div_ceil(PAGE);
        wanted(&self.shared).store(pages as u64, Ordering::Relaxed);
        pages * PAGE
    }

    /// Pages touched since the start, each counted as often as it was touched.
    pub(crate) fn touched(&self) -> u64 {
        touched(&self.shared).load(Ordering::Relaxed)
    }
}

fn wanted(shared: &Mapping) -> &AtomicU64 {
    &shared.counters()[0]
}

fn touched(shared: &Mapping) -> &AtomicU64 {
    &shared.counters()[1]
}

/// Touches what is wanted, for ever. It rests as long as it works, so that other programs on its
/// processor run as well.
fn work(mut memory: Mapping, shared: &Mapping) {
    loop {
        let begin = Instant::now();
        let pages = memory.words_mut().chunks_exact_mut(words());
        let (mut count, mut end) = (0, 0);
        for (index, page) in pages.enumerate() {
            if index % STRIDE == 0 {
                end = wanted(shared).load(Ordering::Relaxed);
            }
            if index as u64 >= end {
                break;
            }
            page[0] = page[0].wrapping_add(1);
            count += 1;
        }
        touched(shared).fetch_add(count, Ordering::Relaxed);
        thread::sleep(begin.elapsed().max(REST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_touches_what_is_wanted_and_stops() {
        let worker = Worker::start().unwrap();
        assert_eq!(worker.set(PAGE * 300 - 1), PAGE * 300);
        let deadline = Instant::now() + Duration::from_secs(30);
        while worker.touched() < 900 {
            assert!(Instant::now() < deadline, "the worker touched {} pages", worker.touched());
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(worker.set(usize::MAX), MOST);
        worker.set(0);
    }
}
