//! How much the lab has run: QEMU's processor time. On a machine that does other things as well, it
//! is less than what has passed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The clock of a lab.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorTime {
    pid: u32,
}

impl ProcessorTime {
    /// That of QEMU in process `pid`.
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// The processor time of all threads together, since they started.
    pub fn now(&self) -> Result<Duration> {
        let directory = format!("/proc/{}/task", self.pid);
        let threads = fs::read_dir(&directory).with_context(|| format!("reading {directory}"))?;
        let mut nanoseconds = 0;
        for thread in threads.flatten() {
            // A thread that ends in this moment has no file any more; those that run guests never
            // do.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            nanoseconds += run_time(&text).with_context(|| format!("{directory}: schedstat {text:?}"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

/// The first number of a schedstat: nanoseconds on a processor.
fn run_time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn who_runs_grows_older() {
        let clock = ProcessorTime::of(std::process::id());
        let before = clock.now().unwrap();
        let begin = Instant::now();
        while clock.now().unwrap() == before {
            assert!(begin.elapsed() < Duration::from_secs(30), "no processor time in 30 s of work");
        }
        assert!(run_time("").is_none());
    }
}
