use std::io;
use std::sync::Mutex;
use std::time::Duration;

use plimsoll_sys::lock;

use super::kvm_stats::HaltStats;
use super::thread_clock::ThreadClock;

/// How much of the time a VM's processors execute.
///
/// One that has the processor, or that its guest has halted, executes. One that waits for a
/// processor, for memory, or for a device that emulates an access, does not: what it does not
/// touch meanwhile says nothing of what it needs (Waldspurger 2002, section 5.3).
#[derive(Debug, Default)]
pub(crate) struct Execution(Mutex<Vec<Vcpu>>);

/// One processor: where its counters stood at the last look.
#[derive(Debug)]
pub(super) struct Vcpu {
    clock: ThreadClock,
    halts: HaltStats,
    ran: Duration,
    halted: Duration,
}

impl Execution {
    /// These are the VM's processors, in place of those before.
    pub(super) fn watch(&self, vcpus: Vec<Vcpu>) {
        *lock(&self.0) = vcpus;
    }

    /// The VM's processors are gone.
    pub(crate) fn forget(&self) {
        self.watch(Vec::new());
    }

    /// How long of `elapsed`, which has passed since the last call, the VM has executed: as long as
    /// that of its processors that was kept from it for longest. All of it for a VM without
    /// processors of its own.
    pub(crate) fn lap(&self, elapsed: Duration) -> Duration {
        let mut vcpus = lock(&self.0);
        // One that has just ended is watched no longer in a moment.
        let laps = vcpus.iter_mut().filter_map(|vcpu| vcpu.lap(elapsed).ok());
        laps.min().unwrap_or(elapsed)
    }
}

impl Vcpu {
    pub(super) fn new(clock: ThreadClock, halts: HaltStats) -> Self {
        Self { clock, halts, ran: Duration::ZERO, halted: Duration::ZERO }
    }

    fn lap(&mut self, elapsed: Duration) -> io::Result<Duration> {
        // In this order: a halt that begins or ends between two readings counts as one.
        let is_halted = self.halts.is_halted()?;
        let (ran, halted) = (self.clock.time()?, self.halts.waited()?);
        let executed = ran.saturating_sub(self.ran) + halted.saturating_sub(self.halted);
        (self.ran, self.halted) = (ran, halted);
        // KVM counts a halt when it ends.
        Ok(if is_halted { elapsed } else { executed.min(elapsed) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_vm_without_processors_executes_all_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(Execution::default().lap(second), second);
    }

    /// A processor whose thread does nothing, and its counters.
    fn idle() -> (Vcpu, File, std::thread::JoinHandle<()>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0; 16], 0).unwrap();
        let thread = std::thread::spawn(std::thread::park);
        let clock = ThreadClock::of(&thread).unwrap();
        (Vcpu::new(clock, HaltStats::in_file(file.try_clone().unwrap())), file, thread)
    }

    #[test]
    fn a_vm_executes_as_long_as_the_processor_that_is_kept_from_it_for_longest() {
        let second = Duration::from_secs(1);
        let ((one, counters, thread), (other, others, _parked)) = (idle(), idle());
        let set = |file: &File, halted: Duration, is_halted: u64| {
            let nanos = u64::try_from(halted.as_nanos()).unwrap();
            file.write_all_at(&nanos.to_ne_bytes(), 0).unwrap();
            file.write_all_at(&is_halted.to_ne_bytes(), 8).unwrap();
        };
        let execution = Execution::default();
        execution.watch(vec![one, other]);
        let about = |lap: Duration, expected: Duration| {
            assert!(lap >= expected && lap < expected + second / 4, "{lap:?} {expected:?}");
        };
        // Neither runs, and neither is halted: both wait.
        about(execution.lap(second), Duration::ZERO);
        set(&others, Duration::ZERO, 1);
        about(execution.lap(second), Duration::ZERO);
        // A halt that has ended counts for as long as it was.
        set(&counters, second / 2, 0);
        about(execution.lap(second), second / 2);
        set(&counters, second / 2, 1);
        assert_eq!(execution.lap(second), second, "both are halted");
        // No more than the time that has passed, though KVM counts a halt when it ends.
        set(&counters, second * 9, 0);
        assert_eq!(execution.lap(second), second);
        execution.forget();
        assert_eq!(execution.lap(second), second);
        thread.thread().unpark();
        thread.join().unwrap();
    }
}
