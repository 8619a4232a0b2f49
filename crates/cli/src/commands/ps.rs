//! `plimsoll ps`: lists VMs, with columns of the operator's choice.

use anyhow::Result;
use jiff::Timestamp;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_words::age;

use crate::context::Context;
use crate::exit::{Status, failed};
use crate::selection::Filter;
use crate::template::Template;
use crate::vm_field::{self, FIELDS, USUAL, VmField};

const HELP: &str = "\
Columns:
  NAME       name of the VM
  POOL       resource pool that it is in; /: the host itself
  POWER      starting, on, paused, stopping (asked to shut down, not yet off) or off
  VCPUS      number of its processors
  SIZE       memory that the guest sees
  RESERV     machine memory that it always has
  LIMIT      machine memory that it never exceeds
  SHARES     its weight when memory is short
  GRANT      machine memory that the host has promised it
  HELD       machine memory that its guest holds
  SAVED      what it would hold in addition if no pages were shared
  UP         time since it was started
  NOTE       what is unusual, or why it is off; stalled: it stands still, waiting for memory (see plimsoll explain VM); unreachable: it runs, but plimsolld has no connection to its VMM yet
With -o and --format also:
  STATE      the same as POWER
  PID        process of its VMM
  LABELS     what its operator notes about it
  AUTOSTART  whether it starts with the host; ORDER: its place among those that do
  DOMAIN     its sharing domain; SHARED: memory that it shares with others, or has several times
  TAX        its own tax on idle memory
  WANTED     memory that its guest waits for
  ACTIVE     estimate of what it actively uses
  ENTITLED   what policy gives it; TARGET: what its balloon is steered to leave it
  BALLOON    memory in its balloon; ZERO: pages of zeros, which cost nothing
  COMPR      memory whose content is compressed; SWAPPED: in swap space only
  OUT/s      (out) written to swap space in a second; IN/s: (in) read from there
  STALL%     (stall) part of the last 10 s in which all of it, some of it waited for memory
  REBOOTS    how often it rebooted since it was started
  CONSOLE    the unix socket of its console

Examples:
  plimsoll ps
  plimsoll ps --label tier=web
  plimsoll ps -o name,power,labels
  plimsoll ps --format '{name} {state}'
  plimsoll ps --json | jq -r '.[] | select(.power == \"on\") | .name'";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Ps {
    #[command(flatten)]
    filter: Filter,
    /// Columns to show, in this order
    #[arg(short = 'o', long, value_name = "COLUMN,...", value_delimiter = ',', value_parser = VmField::named)]
    output: Vec<VmField>,
    /// Print a line for each VM as this says: {COLUMN} stands for what the column would show
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "output")]
    format: Option<Template>,
}

impl Ps {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.filter.choose(context.client.vms()?)?;
        let now = Timestamp::now();
        if let Some(template) = &self.format {
            if context.output.is_json() {
                return Err(failed(Status::Invalid, "--format and --json name two formats: use one of them"));
            }
            let lines: Vec<String> = vms.iter().map(|vm| template.line(vm, now)).collect();
            return context.output.facts(vms.as_slice(), |_| lines.join("\n"));
        }
        let fields = if self.output.is_empty() { &FIELDS[..USUAL] } else { &self.output };
        context.output.facts(vms.as_slice(), |vms| table(fields, vms, now))
    }
}

fn table(fields: &[VmField], vms: &[VmStatus], now: Timestamp) -> String {
    if vms.is_empty() {
        return "No VMs. Define and start one with: plimsoll run DEF.toml".to_owned();
    }
    vm_field::table(fields, vms, now).text()
}

/// Time since a VM that is on was started.
pub(crate) fn up(vm: &VmStatus, now: Timestamp) -> String {
    match vm.started {
        Some(started) if vm.power != Power::Off => {
            age(u64::try_from(now.duration_since(started).as_secs()).unwrap_or(0))
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_protocol::definition::JailPart;
    use plimsoll_protocol::stall::{StallCause, Standstill};
    use plimsoll_protocol::status::{BalloonHealth, Exit};
    use plimsoll_units::Bytes;

    use super::*;
    use plimsoll_words::samples;

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
        let vms = [samples::vm("web1"), odd, killed];
        assert_eq!(table(&FIELDS[..USUAL], &vms, now), samples::local(expected));
        let chosen = ["labels", "name", "pid"].map(|name| VmField::named(name).unwrap());
        let expected = "LABELS             NAME   PID\nenv=prod,tier=web  web1  4711";
        assert_eq!(table(&chosen, &vms[..1], now), expected);
    }

    #[test]
    fn a_vm_that_is_off_says_what_is_wrong_with_its_record() {
        let mut vm = samples::off("a");
        vm.note = Some("its record cannot be read".to_owned());
        vm.exit = Some(Exit::KilledByOperator);
        assert_eq!(plimsoll_words::note(&vm), "killed by the operator; its record cannot be read");
        vm.exit = None;
        assert_eq!(plimsoll_words::note(&vm), "its record cannot be read");
        vm.note = None;
        assert_eq!(plimsoll_words::note(&vm), "not started yet");
    }

    #[test]
    fn the_help_describes_every_column() {
        for field in FIELDS {
            let title = field.column().title();
            assert!(
                HELP.contains(&format!("  {title} ")) || HELP.contains(&format!("; {title}:")),
                "{title}"
            );
        }
    }

    #[test]
    fn a_host_without_vms_says_how_to_get_one() {
        assert!(table(&FIELDS, &[], Timestamp::now()).contains("plimsoll run"));
    }
}
