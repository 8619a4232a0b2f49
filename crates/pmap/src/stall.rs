use std::time::{Duration, Instant};

use crate::account::Account;
use crate::pmap::Pmap;

/// Time that a VM was stalled for memory since its memory was made, in the terms of Linux's PSI.
///
/// A fault is stalled while it waits for a grant or for a read from the swap. Decompression is work
/// and no stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// At least one fault was stalled, or the VM was held.
    pub some: Duration,
    /// As many faults were stalled as the VM has tasks, or the VM was held. Part of `some`.
    pub full: Duration,
}

/// The clock of [`Stalled`]. It reads the time only when the stall begins, ends or changes its
/// kind, and nothing is decided by it, so that the model check can run with it.
#[derive(Debug)]
pub(crate) struct StallClock {
    /// Stalled faults at which all of the VM stands still.
    tasks: u64,
    faults: u64,
    held: bool,
    past: Stalled,
    /// When the stall that lasts began, or last changed its kind.
    since: Option<(Instant, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Some,
    Full,
}

impl Default for StallClock {
    fn default() -> Self {
        Self { tasks: 1, faults: 0, held: false, past: Stalled::default(), since: None }
    }
}

impl StallClock {
    /// Notes that `faults` are stalled from now on.
    pub(crate) fn observe(&mut self, faults: u64) {
        self.faults = faults;
        self.turn();
    }

    fn set_tasks(&mut self, tasks: u64) {
        self.tasks = tasks;
        self.turn();
    }

    fn hold(&mut self, held: bool) {
        self.held = held;
        self.turn();
    }

    fn turn(&mut self) {
        let kind = match self.faults {
            _ if self.held => Some(Kind::Full),
            0 => None,
            faults if faults < self.tasks => Some(Kind::Some),
            _ => Some(Kind::Full),
        };
        if kind != self.since.map(|(_, kind)| kind) {
            let now = Instant::now();
            self.past = self.at(now);
            self.since = kind.map(|kind| (now, kind));
        }
    }

    fn at(&self, now: Instant) -> Stalled {
        let mut stalled = self.past;
        if let Some((since, kind)) = self.since {
            let lasts = now.saturating_duration_since(since);
            stalled.some += lasts;
            if kind == Kind::Full {
                stalled.full += lasts;
            }
        }
        stalled
    }
}

impl Account {
    /// Time stalled so far, the stall that lasts included.
    pub(crate) fn stalled(&self) -> Stalled {
        self.stalls.at(Instant::now())
    }
}

/// How long the VM was stalled for memory.
impl Pmap {
    /// Time that the VM was stalled for memory so far.
    pub fn stalled(&self) -> Stalled {
        self.account().stalled()
    }

    /// Sets at how many stalled faults the VM makes no progress: the number of its processors; 1
    /// until it is set.
    ///
    /// The number of faults stands for that of processors. The kernel can say which thread faults,
    /// but with KVM that is often a thread of the kernel (asynchronous page faults). So
    /// [`Stalled::full`] is too small where the other processors are idle or two wait for the same
    /// page, and too large where a guest goes on with another task meanwhile, or has given a fault
    /// up.
    pub fn set_tasks(&self, tasks: u64) {
        self.account().stalls.set_tasks(tasks);
    }

    /// Notes whether the VM's processors are held because of memory, whatever faults there are.
    pub fn note_held(&self, held: bool) {
        self.account().stalls.hold(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(20);

    /// Times are compared with what has passed at least: a thread may sleep longer.
    #[test]
    fn the_clock_runs_while_faults_are_stalled() {
        let mut clock = StallClock::default();
        clock.set_tasks(2);
        let now = |clock: &StallClock| clock.at(Instant::now());
        std::thread::sleep(STEP);
        assert_eq!(now(&clock), Stalled::default());
        clock.observe(1);
        std::thread::sleep(STEP);
        let one = now(&clock);
        assert!(one.some >= STEP && one.full == Duration::ZERO, "{one:?}");
        clock.observe(2);
        std::thread::sleep(STEP);
        let two = now(&clock);
        assert!(two.some >= 2 * STEP && two.full >= STEP && two.full <= two.some - STEP, "{two:?}");
        clock.observe(0);
        let ended = now(&clock);
        assert!(ended.some >= two.some);
        std::thread::sleep(STEP);
        assert_eq!(now(&clock), ended, "nothing is stalled");
    }

    #[test]
    fn a_vm_that_is_held_is_stalled_in_full() {
        let mut clock = StallClock::default();
        clock.set_tasks(8);
        clock.hold(true);
        clock.observe(1);
        std::thread::sleep(STEP);
        clock.hold(false);
        let held = clock.at(Instant::now());
        assert!(held.full >= STEP, "{held:?}");
        std::thread::sleep(STEP);
        let after = clock.at(Instant::now());
        assert!(after.full == held.full && after.some >= held.some + STEP, "{after:?}");
    }
}
