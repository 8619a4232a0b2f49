//! Watches the host while a scenario runs: the ledger's word, and beside it the kernel's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_protocol::status::{HostStatus, VmStatus};
use plimsoll_sys::clock::thread_processor_time;
use plimsoll_units::Bytes;

use crate::smaps;
use crate::stage::Stage;
use crate::standstill::Standstill;

/// The least time between two looks.
const PERIOD: Duration = Duration::from_millis(300);
/// The part of a processor that the looks may take. Each reads every VMM's smaps, which emulation
/// makes slow: with more, watching slows down what is watched.
const SHARE: f64 = 0.05;

/// The highest values seen.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    /// Granted, charged and shared, by the ledger.
    pub ledger: Bytes,
    /// Guest memory of all VMMs, by the kernel, and the frames that they share.
    pub kernel: Bytes,
    /// In balloons.
    pub ballooned: Bytes,
    /// Accounts that did not add up, in words; at most a few.
    pub errors: Vec<String>,
}

/// More would only repeat the first.
const MAX_ERRORS: usize = 5;

impl Peaks {
    fn complain(&mut self, text: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(text);
        }
    }

    /// One look.
    fn look(&mut self, stage: &Stage) -> Result<()> {
        let host = stage.host()?;
        let used = host.granted + host.overhead + host.frames;
        if used + host.free != host.budget {
            self.complain(format!(
                "the ledger does not add up: granted {} + overhead {} + frames {} + free {} is not the budget {}",
                host.granted.0, host.overhead.0, host.frames.0, host.free.0, host.budget.0
            ));
        }
        self.ledger = self.ledger.max(used).max(host.peak_ledger);
        let vms = stage.vms()?;
        self.ballooned = self.ballooned.max(vms.iter().map(|vm| vm.ballooned).sum());
        let mut kernel = accounted(&host, &vms)?;
        if kernel > host.budget {
            // Memory may have gone from one VM to another between two looks. When all stand still
            // none does.
            let _still: Vec<_> = vms.iter().filter_map(|vm| Standstill::of(vm.pid?).ok()).collect();
            kernel = accounted(&stage.host()?, &stage.vms()?)?;
        }
        self.kernel = self.kernel.max(kernel);
        if kernel > host.budget {
            self.complain(format!(
                "the kernel accounts {kernel} to guests, over the budget of {}",
                host.budget
            ));
        }
        Ok(())
    }
}

/// What the kernel says that guests have, and the frames that they share, which belong to no single
/// VM.
pub fn accounted(host: &HostStatus, vms: &[VmStatus]) -> Result<Bytes> {
    let guest = |vm: &VmStatus| -> Result<Bytes> {
        let Some(pid) = vm.pid else { return Ok(Bytes::ZERO) };
        Ok(smaps::account(pid, vm.size)?.map_or(Bytes::ZERO, |account| account.guest))
    };
    vms.iter().try_fold(host.frames, |sum, vm| Ok(sum + guest(vm)?))
}

/// Sleeps for `time`, or until it is `over`.
fn wait(time: Duration, over: &AtomicBool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !over.load(Ordering::Relaxed) {
        thread::sleep(PERIOD.min(end.saturating_duration_since(Instant::now())));
    }
}

/// Runs `work` while watching `stage`; returns what it returned and what was seen.
pub fn while_watching<T>(stage: &Stage, work: impl FnOnce() -> Result<T>) -> Result<(T, Peaks)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peaks = Peaks::default();
            while !over.load(Ordering::Relaxed) {
                let begin = thread_processor_time();
                if let Err(error) = peaks.look(stage) {
                    peaks.complain(format!("{error:#}"));
                }
                let took = thread_processor_time().saturating_sub(begin);
                wait(PERIOD.max(took.div_f64(SHARE)), &over);
            }
            peaks
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        let peaks = watching.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        Ok((result?, peaks))
    })
}
