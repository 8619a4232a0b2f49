use plimsoll_protocol::explain::{Change, Remedy};
use plimsoll_protocol::status::VmStatus;
use plimsoll_units::Bytes;

use crate::table::{Column, Table};

/// What would entitle a VM to more, as commands where there are any.
pub(super) fn text(vm: &VmStatus, remedies: &[Remedy]) -> String {
    // Not the goal: a limit or the VM's size may keep every change below it.
    let Some(most) = remedies.iter().map(|remedy| remedy.entitlement).max() else {
        return format!("No change would entitle {} to more.", vm.name);
    };
    let mut table = Table::new(&[Column::right("ENTITLED"), Column::left("IF")]);
    for remedy in remedies {
        table.row([remedy.entitlement.to_string(), change(vm, &remedy.change)]);
    }
    format!("Any one of these would entitle it to up to {most}:\n{}", table.text())
}

fn change(vm: &VmStatus, change: &Change) -> String {
    let name = &vm.name;
    match change {
        Change::Active(bytes) => format!("its guest uses {} actively", exact(*bytes)),
        Change::Untaxed => format!("plimsoll set {name} --tax 0"),
        Change::Limit(bytes) => format!("plimsoll set {name} --limit {}", exact(*bytes)),
        Change::Size(bytes) => format!("it is stopped and run again with size {}", exact(*bytes)),
        Change::Shares(shares) => format!("plimsoll set {name} --shares {shares}"),
        Change::Reservation(bytes) => format!("plimsoll set {name} --reservation {}", exact(*bytes)),
        Change::PoolLimit(pool, bytes) => format!("plimsoll pool set {pool} --limit {}", exact(*bytes)),
        Change::PoolShares(pool, shares) => format!("plimsoll pool set {pool} --shares {shares}"),
        Change::PoolReservation(pool, bytes) => {
            format!("plimsoll pool set {pool} --reservation {}", exact(*bytes))
        }
        Change::Memory(bytes) => {
            format!("the host has {} more for guests (fewer VMs, or a larger budget)", exact(*bytes))
        }
    }
}

/// A size that a command takes: in whole MiB, rounded up.
fn exact(bytes: Bytes) -> Bytes {
    Bytes(bytes.0.div_ceil(1 << 20) << 20)
}
