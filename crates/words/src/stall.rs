//! Time stalled for memory as text.

use plimsoll_protocol::stall::{StallStatus, StallTime};
use plimsoll_protocol::status::VmStatus;

use crate::age;

/// Both kinds of stalls with their averages and totals; and why the VM stands still, if it does.
pub fn text(vm: &VmStatus) -> String {
    let StallStatus { some, full } = vm.stall;
    let why = vm.stalled.map_or_else(String::new, |stalled| format!("; {}", stalled.cause));
    format!("full {}; some {}{why}", time(full), time(some))
}

/// The averages of a host.
pub fn of_host(stall: &StallStatus) -> String {
    let averages = |StallTime { avg10, avg60, avg300, .. }| format!("{avg10}% {avg60}% {avg300}%");
    format!("full {}, some {}", averages(stall.full), averages(stall.some))
}

fn time(StallTime { avg10, avg60, avg300, total_ms }: StallTime) -> String {
    format!("{avg10}% of 10s, {avg60}% of 60s, {avg300}% of 300s, total {}", age(total_ms / 1000))
}

/// The parts of the last 10 s in whole percent: all of the VM, some of it.
pub fn column(stall: &StallStatus) -> String {
    format!("{}/{}", stall.full.avg10.rounded(), stall.some.avg10.rounded())
}
