use plimsoll_policy::State;
use plimsoll_protocol::status::{HostStatus, TurnStatus};

use super::metric::{Table, bytes, bytes_by, bytes_if_any, number, number_by, seconds, total_seconds};
use super::vm::seconds_of;

const STATES: [(State, &str); 5] = [
    (State::High, "high"),
    (State::Clear, "clear"),
    (State::Soft, "soft"),
    (State::Hard, "hard"),
    (State::Low, "low"),
];

/// Metrics of the host.
pub(super) const HOST: Table<HostStatus> = Table {
    kind: "host",
    label: None,
    metrics: &[
        bytes("budget", "Machine memory that Plimsoll may use", |host| host.budget),
        bytes_by(
            "memory",
            "The budget by use: granted to guests, overhead of VMMs, frames that pages of VMs share, free; the sum is the budget",
            "use",
            |host| {
                vec![
                    ("granted", host.granted),
                    ("overhead", host.overhead),
                    ("frames", host.frames),
                    ("free", host.free),
                ]
            },
        ),
        bytes(
            "taken",
            "The part of the configured budget that other programs of the host have taken",
            |host| host.taken,
        ),
        bytes("reserved", "Reserved by VMs that run, with their overhead, and by pools", |host| {
            host.reserved
        }),
        bytes("high_threshold", "The host is in state high while at least this much is free", |host| {
            host.high_threshold
        }),
        number_by("state", "1 for the state that the host is in, 0 for the others", "state", |host| {
            STATES.map(|(state, word)| (word, u64::from(state == host.state))).to_vec()
        }),
        bytes("held", "Held by guests, as their VMMs say", |host| host.held),
        bytes("resident", "Resident guest memory, as the kernel accounts it", |host| host.kernel),
        bytes("ballooned", "Guest memory in balloons", |host| host.ballooned),
        bytes("shared", "Guest memory that reads shared frames", |host| host.shared),
        bytes("zero", "Guest memory that was found to hold zeros, and costs nothing", |host| host.zero),
        bytes("compressed", "Guest memory whose content is compressed", |host| host.compressed),
        bytes("store", "Machine memory that compressed content takes; part of what is held", |host| {
            host.store
        }),
        bytes("swapped", "Guest memory whose content is in swap space only", |host| host.swapped),
        number("swap_enabled", "1 if VMs that start get swap space, 0 if not", |host| {
            u64::from(host.swapping)
        }),
        bytes("swap_reserved", "Swap space that VMs that run have reserved", |host| host.swap_reserved),
        bytes_if_any(
            "swap_limit",
            "Swap space that admission counts on; absent where it does not look at swap space",
            |host| host.swap,
        ),
        total_seconds(
            "stall_some",
            "Time in which part of a VM waited for memory, all VMs together, since the daemon started",
            |host| seconds_of(host.stall.some.total_ms),
        ),
        total_seconds(
            "stall_full",
            "Time in which all of a VM waited for memory, all VMs together, since the daemon started",
            |host| seconds_of(host.stall.full.total_ms),
        ),
        number("running_vms", "VMs that have a process, or are about to", |host| host.running),
        number("stalled_vms", "VMs that stand still for want of memory", |host| host.stalled),
        number("blocked_vms", "VMs whose processors are stopped until they hold less", |host| host.blocked),
        seconds(
            "turn_p99",
            "Time that 99 of 100 turns of the daemon's loop took at most, in the last whole 10 s",
            |host| host.turns.map(|turns| micros(turns, |turns| turns.p99_us)),
        ),
        seconds("turn_longest", "Longest turn of the daemon's loop in the last whole 10 s", |host| {
            host.turns.map(|turns| micros(turns, |turns| turns.longest_us))
        }),
    ],
};

#[expect(clippy::cast_precision_loss, reason = "a turn of 285 years is none")]
fn micros(turns: TurnStatus, of: fn(&TurnStatus) -> u64) -> f64 {
    of(&turns) as f64 / 1e6
}
