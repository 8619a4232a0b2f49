//! Clocks of the kernel that `std` does not read.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time that the calling thread has used since it started.
#[must_use]
pub fn thread_processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn only_work_of_this_thread_counts() {
        let start = thread_processor_time();
        std::thread::spawn(|| while thread_processor_time() < Duration::from_millis(100) {}).join().unwrap();
        sleep(Duration::from_millis(100));
        let idle = thread_processor_time() - start;
        assert!(idle < Duration::from_millis(100), "a sleeping thread used {idle:?}");
        while thread_processor_time() - start < Duration::from_millis(5) {}
    }
}
