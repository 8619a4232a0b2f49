//! Which processor a thread runs on.

use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where a thread runs. A fault that wakes a thread on its own processor takes another time than
/// one that wakes a thread on another, and the scheduler would change its mind from run to run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The first processor that this process may use: the thread that touches memory is there.
    Here,
    /// The second, where there is one.
    Elsewhere,
}

/// Keeps the calling thread at `place`. The first call must come before threads are started, which
/// inherit its place.
pub(crate) fn stay(place: Place) {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
    });
    let index = match place {
        Place::Here => 0,
        Place::Elsewhere => 1,
    };
    if let Some(&cpu) = allowed.get(index).or(allowed.first()) {
        let mut set = CpuSet::new();
        set.set(cpu);
        // Where it is refused the figures only spread more.
        sched_setaffinity(None, &set).ok();
    }
}
