use std::cmp::Ordering;

use jiff::Timestamp;
use plimsoll_protocol::stall::StallStatus;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;
use plimsoll_words::table::{Column, Table};
use plimsoll_words::{note, stall};

use crate::commands::up;

/// One fact of a VM that a table or a template can show.
#[derive(Clone, Copy)]
pub(crate) struct VmField {
    key: &'static str,
    column: Column,
    value: Value,
}

/// What a fact is, which also says how VMs are ordered by it.
#[derive(Clone, Copy)]
enum Value {
    Words(fn(&VmStatus) -> String),
    Size(fn(&VmStatus) -> Bytes),
    Count(fn(&VmStatus) -> u64),
    /// Text, and what it is ordered by in place of itself.
    Ranked(fn(&VmStatus, Timestamp) -> String, fn(&VmStatus) -> u64),
}

impl std::fmt::Debug for VmField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key)
    }
}

impl PartialEq for VmField {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl VmField {
    /// The field of this name, in either case.
    ///
    /// # Errors
    /// No field has this name; the error lists the names.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let found = FIELDS.into_iter().find(|field| field.key.eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| {
            let keys: Vec<&str> = FIELDS.iter().map(|field| field.key).collect();
            format!("there is no column {name:?}: there are {}", keys.join(", "))
        })
    }

    pub(crate) fn key(self) -> &'static str {
        self.key
    }

    pub(crate) fn column(self) -> Column {
        self.column
    }

    pub(crate) fn value(self, vm: &VmStatus, now: Timestamp) -> String {
        match self.value {
            Value::Words(words) => words(vm),
            Value::Size(size) => size(vm).to_string(),
            Value::Count(count) => count(vm).to_string(),
            Value::Ranked(text, _) => text(vm, now),
        }
    }

    /// Which of two VMs a list in the order of this fact shows first: words as a dictionary has
    /// them, numbers the largest first.
    pub(crate) fn compare(self, one: &VmStatus, other: &VmStatus) -> Ordering {
        match self.value {
            Value::Words(words) => words(one).cmp(&words(other)),
            Value::Size(size) => size(other).cmp(&size(one)),
            Value::Count(rank) | Value::Ranked(_, rank) => rank(other).cmp(&rank(one)),
        }
    }
}

const fn words(key: &'static str, title: &'static str, value: fn(&VmStatus) -> String) -> VmField {
    VmField { key, column: Column::left(title), value: Value::Words(value) }
}

const fn size(key: &'static str, title: &'static str, value: fn(&VmStatus) -> Bytes) -> VmField {
    VmField { key, column: Column::right(title), value: Value::Size(value) }
}

const fn count(key: &'static str, title: &'static str, value: fn(&VmStatus) -> u64) -> VmField {
    VmField { key, column: Column::right(title), value: Value::Count(value) }
}

const fn ranked(
    key: &'static str,
    title: &'static str,
    text: fn(&VmStatus, Timestamp) -> String,
    rank: fn(&VmStatus) -> u64,
) -> VmField {
    VmField { key, column: Column::right(title), value: Value::Ranked(text, rank) }
}

/// The VM that was started first is the longest on.
fn time_on(vm: &VmStatus) -> u64 {
    let started = vm.started.filter(|_| vm.power != Power::Off);
    started.and_then(|at| u64::try_from(at.as_second()).ok()).map_or(0, |at| u64::MAX - at)
}

/// A VM that stands still is stalled more than one of which a part does.
fn stalled(vm: &VmStatus) -> u64 {
    let StallStatus { some, full } = vm.stall;
    u64::from(full.avg10.hundredths()) << 16 | u64::from(some.avg10.hundredths())
}

/// All that there are; those of a table without `-o` first, in its order.
pub(crate) const FIELDS: [VmField; 34] = [
    words("name", "NAME", |vm| vm.name.to_string()),
    words("pool", "POOL", |vm| vm.pool.to_string()),
    words("power", "POWER", |vm| vm.power.to_string()),
    count("vcpus", "VCPUS", |vm| vm.vcpus.into()),
    size("size", "SIZE", |vm| vm.size),
    size("reserv", "RESERV", |vm| vm.reservation),
    size("limit", "LIMIT", |vm| vm.limit),
    count("shares", "SHARES", |vm| vm.share_count),
    size("grant", "GRANT", |vm| vm.grant),
    size("held", "HELD", |vm| vm.held),
    size("saved", "SAVED", |vm| vm.sharing.saved),
    ranked("up", "UP", up, time_on),
    words("note", "NOTE", note),
    words("state", "STATE", |vm| vm.power.to_string()),
    ranked("pid", "PID", |vm, _| or_dash(vm.pid), |vm| vm.pid.unwrap_or(0).into()),
    words("labels", "LABELS", |vm| vm.labels.to_string()),
    words("autostart", "AUTOSTART", |vm| if vm.autostart { "yes" } else { "no" }.to_owned()),
    count("order", "ORDER", |vm| vm.start_order.0.into()),
    words("domain", "DOMAIN", |vm| vm.sharing.with.to_string()),
    words("tax", "TAX", |vm| or_dash(vm.tax)),
    size("wanted", "WANTED", |vm| vm.wanted),
    size("active", "ACTIVE", |vm| vm.active),
    size("entitled", "ENTITLED", |vm| vm.entitlement),
    size("target", "TARGET", |vm| vm.target),
    size("balloon", "BALLOON", |vm| vm.ballooned),
    size("shared", "SHARED", |vm| vm.sharing.shared),
    size("zero", "ZERO", |vm| vm.sharing.zero),
    size("compr", "COMPR", |vm| vm.paging.compressed),
    size("swapped", "SWAPPED", |vm| vm.paging.swapped),
    size("out", "OUT/s", |vm| vm.paging.out_rate),
    size("in", "IN/s", |vm| vm.paging.in_rate),
    ranked("stall", "STALL%", |vm, _| stall::column(&vm.stall), stalled),
    count("reboots", "REBOOTS", |vm| vm.reboots.into()),
    words("console", "CONSOLE", |vm| vm.console.display().to_string()),
];

/// The facts `fields` of `vms`, a row for each VM.
pub(crate) fn table(fields: &[VmField], vms: &[VmStatus], now: Timestamp) -> Table {
    let columns: Vec<Column> = fields.iter().map(|field| field.column()).collect();
    let mut table = Table::new(&columns);
    for vm in vms {
        table.cells(fields.iter().map(|field| field.value(vm, now)).collect());
    }
    table
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// How many of [`FIELDS`] a table shows without `-o`.
pub(crate) const USUAL: usize = 13;

#[cfg(test)]
mod tests {
    use plimsoll_words::samples;

    use super::*;

    #[test]
    fn vms_are_ordered_by_what_a_fact_means() {
        let now = Timestamp::now();
        let (mut a, mut b) = (samples::vm("a"), samples::vm("b"));
        (a.held, b.held) = (Bytes::mib(9), Bytes::mib(10));
        (a.reboots, b.reboots) = (9, 10);
        b.stall.full.avg10 = plimsoll_protocol::Percent::WHOLE;
        a.started = Some("2026-01-01T00:00:01Z".parse().unwrap());
        for (key, first) in [("name", "a"), ("held", "b"), ("reboots", "b"), ("stall", "b"), ("up", "b")] {
            let field = VmField::named(key).unwrap();
            let mut both = [&a, &b];
            both.sort_by(|one, other| field.compare(one, other));
            assert_eq!(
                both[0].name.to_string(),
                first,
                "{key}: {} {}",
                field.value(&a, now),
                field.value(&b, now)
            );
        }
        // A VM that is off has not been on for long.
        assert_eq!(VmField::named("up").unwrap().compare(&samples::off("c"), &a), Ordering::Greater);
    }
}
