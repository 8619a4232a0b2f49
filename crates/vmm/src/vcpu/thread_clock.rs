//! The processor time of another thread of this process (`pthread_getcpuclockid`).

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

/// The clock of one thread. Guest code that the thread runs counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// That of `thread`.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn of<T>(thread: &JoinHandle<T>) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the handle keeps the thread's identity valid, and the result is written to a
        // variable of ours.
        match unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) } {
            0 => Ok(Self(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// The processor time that it has had.
    ///
    /// # Errors
    /// It has ended: the kernel knows threads of this process by number, and not this one any more.
    pub(super) fn time(self) -> io::Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the result is written to a variable of ours; an unknown clock is an error.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Ok(Duration::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_sleeps_has_no_time_and_one_that_works_has() {
        let (work, works) = channel::<()>();
        let (done, worked) = channel();
        let thread = std::thread::spawn(move || {
            for () in works {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(20) {}
                done.send(()).unwrap();
            }
        });
        let clock = ThreadClock::of(&thread).unwrap();
        let before = clock.time().unwrap();
        work.send(()).unwrap();
        worked.recv().unwrap();
        let after = clock.time().unwrap();
        assert!(after > before, "{before:?} {after:?}");
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.time().unwrap() - after < Duration::from_millis(20), "it did nothing");
        drop(work);
        thread.join().unwrap();
        // The kernel says that a thread has ended a moment before it forgets it.
        let deadline = Instant::now() + Duration::from_secs(60);
        while clock.time().is_ok() {
            assert!(Instant::now() < deadline, "a thread that has ended has a clock");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
