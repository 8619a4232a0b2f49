use anyhow::Result;
use jiff::Timestamp;
use plimsoll_protocol::status::{BalloonHealth, Power, VmStatus};

use crate::context::Context;
use crate::interval::age;
use crate::selection::Filter;
use crate::table::{Column, Table};

const HELP: &str = "\
Columns:
  POOL    resource pool that it is in; /: the host itself
  POWER   starting, on, stopping (asked to shut down, not yet off) or off
  SIZE    memory that the guest sees
  RESERV  machine memory that it always has
  LIMIT   machine memory that it never exceeds
  SHARES  its weight when memory is short
  GRANT   machine memory that the host has promised it
  HELD    machine memory that its guest holds
  SAVED   what it would hold in addition if no pages were shared
  UP      time since it was started
  NOTE    what is unusual, or why it is off; stalled: it stands still, waiting for memory (see
          plimsoll explain VM); unreachable: it runs, but plimsolld has no connection to its VMM yet

Examples:
  plimsoll ps
  plimsoll ps --json | jq -r '.[] | select(.power == \"on\") | .name'";

const COLUMNS: [Column; 13] = [
    Column::left("NAME"),
    Column::left("POOL"),
    Column::left("POWER"),
    Column::right("VCPUS"),
    Column::right("SIZE"),
    Column::right("RESERV"),
    Column::right("LIMIT"),
    Column::right("SHARES"),
    Column::right("GRANT"),
    Column::right("HELD"),
    Column::right("SAVED"),
    Column::right("UP"),
    Column::left("NOTE"),
];

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Ps {
    #[command(flatten)]
    filter: Filter,
}

impl Ps {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.filter.choose(context.client.vms()?)?;
        let now = Timestamp::now();
        context.output.facts(vms.as_slice(), |vms| table(vms, now))
    }
}

fn table(vms: &[VmStatus], now: Timestamp) -> String {
    if vms.is_empty() {
        return "No VMs. Define and start one with: plimsoll run DEF.toml".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for vm in vms {
        table.row([
            vm.name.to_string(),
            vm.pool.to_string(),
            vm.power.to_string(),
            vm.vcpus.to_string(),
            vm.size.to_string(),
            vm.reservation.to_string(),
            vm.limit.to_string(),
            vm.share_count.to_string(),
            vm.grant.to_string(),
            vm.held.to_string(),
            vm.sharing.saved.to_string(),
            up(vm, now),
            note(vm),
        ]);
    }
    table.text()
}

/// Time since a VM that is on was started.
pub(super) fn up(vm: &VmStatus, now: Timestamp) -> String {
    match vm.started {
        Some(started) if vm.power != Power::Off => {
            age(u64::try_from(now.duration_since(started).as_secs()).unwrap_or(0))
        }
        _ => "-".to_owned(),
    }
}

/// What is unusual about a VM, or why it is off.
pub(super) fn note(vm: &VmStatus) -> String {
    if vm.power == Power::Off {
        let exit = vm.exit.as_ref().map(ToString::to_string);
        let notes: Vec<String> = exit.into_iter().chain(vm.note.clone()).collect();
        return if notes.is_empty() { "not started yet".to_owned() } else { notes.join("; ") };
    }
    let mut notes = Vec::new();
    if vm.model {
        notes.push("model".to_owned());
    }
    if let Some(stalled) = &vm.stalled {
        notes.push(format!("stalled since {:.0}", stalled.since));
    }
    if vm.balloon == BalloonHealth::Stuck {
        notes.push("balloon stuck".to_owned());
    }
    if vm.paging.blocked {
        notes.push("held: the host is in state low".to_owned());
    }
    if vm.paging.failed {
        notes.push("swap failed".to_owned());
    }
    if vm.sharing.mappings_full {
        notes.push("no mappings left to share".to_owned());
    }
    if vm.wanted.0 > 0 {
        notes.push(format!("waits for {}", vm.wanted));
    }
    if !vm.missing_jail.is_empty() {
        let parts: Vec<String> = vm.missing_jail.iter().map(ToString::to_string).collect();
        notes.push(format!("jail lacks {}", parts.join(", ")));
    }
    notes.extend(vm.note.clone());
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::definition::JailPart;
    use plimsoll_protocol::stall::{StallCause, Standstill};
    use plimsoll_protocol::status::Exit;
    use plimsoll_units::Bytes;

    use super::*;
    use crate::commands::samples;

    #[test]
    fn the_table_reads_at_a_glance() {
        let mut odd = samples::vm("db");
        odd.balloon = BalloonHealth::Stuck;
        odd.wanted = Bytes::mib(2);
        odd.stalled = Some(Standstill {
            since: "2026-01-01T01:00:00Z".parse().unwrap(),
            cause: StallCause::AtLimit(odd.limit),
        });
        odd.pool = "prod".parse().unwrap();
        odd.note = Some("cut off".to_owned());
        odd.missing_jail = vec![JailPart::Cgroup];
        let mut killed = samples::off("old");
        killed.exit = Some(Exit::KilledByOperator);
        let now = "2026-01-01T01:02:03Z".parse().unwrap();
        let expected = "\
NAME  POOL  POWER  VCPUS    SIZE  RESERV   LIMIT  SHARES   GRANT    HELD  SAVED     UP  NOTE
web1  /     on         2  256MiB   64MiB  256MiB    2560  200MiB  180MiB  30MiB  1h 2m
db    prod  on         2  256MiB   64MiB  256MiB    2560  200MiB  180MiB  30MiB  1h 2m  stalled since 2026-01-01T01:00:00Z; balloon stuck; waits for 2MiB; jail lacks cgroup; cut off
old   /     off        2  256MiB   64MiB  256MiB    2560      0B      0B     0B      -  killed by the operator";
        assert_eq!(table(&[samples::vm("web1"), odd, killed], now), expected);
    }

    #[test]
    fn a_vm_that_is_off_says_what_is_wrong_with_its_record() {
        let mut vm = samples::off("a");
        vm.note = Some("its record cannot be read".to_owned());
        vm.exit = Some(Exit::KilledByOperator);
        assert_eq!(note(&vm), "killed by the operator; its record cannot be read");
        vm.exit = None;
        assert_eq!(note(&vm), "its record cannot be read");
        vm.note = None;
        assert_eq!(note(&vm), "not started yet");
    }

    #[test]
    fn a_host_without_vms_says_how_to_get_one() {
        assert!(table(&[], Timestamp::now()).contains("plimsoll run"));
    }
}
