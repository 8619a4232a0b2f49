use std::collections::VecDeque;

use super::look::Look;

/// Looks that are remembered: a line of them on the widest screen.
const MOST: usize = 240;

/// How the host fared in the latest looks, oldest first.
#[derive(Debug, Default)]
pub(super) struct Trend {
    /// Free memory, in bytes.
    pub(super) free: VecDeque<u64>,
    /// Part of the last 10 s in which VMs were stalled, in hundredths of a percent.
    pub(super) stalled: VecDeque<u64>,
}

impl Trend {
    pub(super) fn add(&mut self, look: &Look) {
        push(&mut self.free, look.host.free.0);
        push(&mut self.stalled, look.host.stall.some.avg10.hundredths().into());
    }
}

fn push(values: &mut VecDeque<u64>, value: u64) {
    if values.len() == MOST {
        values.pop_front();
    }
    values.push_back(value);
}
