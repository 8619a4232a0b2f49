use jiff::Timestamp;
use plimsoll_protocol::status::VmStatus;
use plimsoll_words::note;
use plimsoll_words::table::Column;

use crate::commands::up;

/// One fact of a VM that a table or a template can show.
#[derive(Clone, Copy)]
pub(crate) struct VmField {
    key: &'static str,
    column: Column,
    value: fn(&VmStatus, Timestamp) -> String,
}

impl std::fmt::Debug for VmField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

impl VmField {
    /// The field of this name, in either case.
    ///
    /// # Errors
    /// There is none: the names that there are.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = FIELDS.into_iter().find(|field| field.key.eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| {
            let keys: Vec<&str> = FIELDS.iter().map(|field| field.key).collect();
            format!("there is no column {name:?}: there are {}", keys.join(", "))
        })
    }

    pub(crate) fn column(self) -> Column {
        self.column
    }

    pub(crate) fn value(self, vm: &VmStatus, now: Timestamp) -> String {
        (self.value)(vm, now)
    }
}

const fn left(key: &'static str, title: &'static str, value: fn(&VmStatus, Timestamp) -> String) -> VmField {
    VmField { key, column: Column::left(title), value }
}

const fn right(key: &'static str, title: &'static str, value: fn(&VmStatus, Timestamp) -> String) -> VmField {
    VmField { key, column: Column::right(title), value }
}

/// All that there are; those of a table without `-o` first, in its order.
pub(crate) const FIELDS: [VmField; 31] = [
    left("name", "NAME", |vm, _| vm.name.to_string()),
    left("pool", "POOL", |vm, _| vm.pool.to_string()),
    left("power", "POWER", |vm, _| vm.power.to_string()),
    right("vcpus", "VCPUS", |vm, _| vm.vcpus.to_string()),
    right("size", "SIZE", |vm, _| vm.size.to_string()),
    right("reserv", "RESERV", |vm, _| vm.reservation.to_string()),
    right("limit", "LIMIT", |vm, _| vm.limit.to_string()),
    right("shares", "SHARES", |vm, _| vm.share_count.to_string()),
    right("grant", "GRANT", |vm, _| vm.grant.to_string()),
    right("held", "HELD", |vm, _| vm.held.to_string()),
    right("saved", "SAVED", |vm, _| vm.sharing.saved.to_string()),
    right("up", "UP", up),
    left("note", "NOTE", |vm, _| note(vm)),
    left("state", "STATE", |vm, _| vm.power.to_string()),
    right("pid", "PID", |vm, _| vm.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
    left("labels", "LABELS", |vm, _| vm.labels.to_string()),
    left("autostart", "AUTOSTART", |vm, _| if vm.autostart { "yes" } else { "no" }.to_owned()),
    right("order", "ORDER", |vm, _| vm.start_order.to_string()),
    left("domain", "DOMAIN", |vm, _| vm.sharing.with.to_string()),
    left("tax", "TAX", |vm, _| vm.tax.map_or_else(|| "-".to_owned(), |tax| tax.to_string())),
    right("wanted", "WANTED", |vm, _| vm.wanted.to_string()),
    right("active", "ACTIVE", |vm, _| vm.active.to_string()),
    right("entitled", "ENTITLED", |vm, _| vm.entitlement.to_string()),
    right("target", "TARGET", |vm, _| vm.target.to_string()),
    right("balloon", "BALLOON", |vm, _| vm.ballooned.to_string()),
    right("shared", "SHARED", |vm, _| vm.sharing.shared.to_string()),
    right("compr", "COMPR", |vm, _| vm.paging.compressed.to_string()),
    right("swapped", "SWAPPED", |vm, _| vm.paging.swapped.to_string()),
    right("stall", "STALL%", |vm, _| plimsoll_words::stall::column(&vm.stall)),
    right("reboots", "REBOOTS", |vm, _| vm.reboots.to_string()),
    left("console", "CONSOLE", |vm, _| vm.console.display().to_string()),
];

/// How many of [`FIELDS`] a table shows without `-o`.
pub(crate) const USUAL: usize = 13;
