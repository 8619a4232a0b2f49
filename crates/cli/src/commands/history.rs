//! `plimsoll history`: prints what the daemon has recorded of VMs.

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::history::{History as Record, Sample};
use plimsoll_words::age;
use plimsoll_words::local_time::to_the_second;
use plimsoll_words::table::{Column, Table};

use crate::context::Context;
use crate::exit::{Status, failed};

const HELP: &str = "\
The daemon records each VM that runs every 5 s, for up to a day (less on a host of very many VMs). The record is in its memory: a daemon that is restarted begins anew.

Columns:
  TIME      since the first line
  ACTIVE    estimate of what the VM actively used
  HELD      machine memory that its guest held
  ENTITLED  what policy gave it
  BALLOON   memory in its balloon
  SHARED    memory that it shared with others, or had several times
  ZERO      pages of zeros, which cost nothing
  COMPR     memory whose content was compressed
  SWAPPED   memory whose content was in swap space only
  OUT/s     written to swap space in a second; IN/s: read from there
  STALL%    part of the time since its line before in which all of the VM waited for memory / in which some of it did

With --csv the columns are seconds, vm, active_bytes, held_bytes, entitlement_bytes, ballooned_bytes, shared_bytes, zero_bytes, saved_bytes, compressed_bytes, swapped_bytes, swap_out_bytes_per_second, swap_in_bytes_per_second, stall_some_percent and stall_full_percent.

Examples:
  plimsoll history web1
  plimsoll history --csv > morning.csv    a trace for the simulator (plimsoll plan)";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct History {
    /// Name of the VM; without, all
    #[arg(value_name = "VM")]
    name: Option<VmName>,
    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
}

impl History {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        if self.csv && context.output.is_json() {
            let text = "--csv and --json name two formats: use one of them";
            return Err(failed(Status::Invalid, text));
        }
        if self.csv {
            return context.output.bytes(&context.client.history_csv(self.name.as_ref())?);
        }
        context.output.facts(&context.client.history(self.name.as_ref())?, table)
    }
}

const COLUMNS: [Column; 13] = [
    Column::left("TIME"),
    Column::left("VM"),
    Column::right("ACTIVE"),
    Column::right("HELD"),
    Column::right("ENTITLED"),
    Column::right("BALLOON"),
    Column::right("SHARED"),
    Column::right("ZERO"),
    Column::right("COMPR"),
    Column::right("SWAPPED"),
    Column::right("OUT/s"),
    Column::right("IN/s"),
    Column::right("STALL%"),
];

fn table(record: &Record) -> String {
    if record.samples.is_empty() {
        return "Nothing is recorded yet: VMs that run are recorded every 5 s.".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for sample in &record.samples {
        let Sample { seconds, vm, active, held, entitlement, ballooned, shared, zero, .. } = sample;
        table.row([
            age(*seconds),
            vm.to_string(),
            active.to_string(),
            held.to_string(),
            entitlement.to_string(),
            ballooned.to_string(),
            shared.to_string(),
            zero.to_string(),
            sample.compressed.to_string(),
            sample.swapped.to_string(),
            sample.out_rate.to_string(),
            sample.in_rate.to_string(),
            format!("{}/{}", sample.stall_full.rounded(), sample.stall_some.rounded()),
        ]);
    }
    format!("since {}\n{}", to_the_second(record.since), table.text())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_a_line_a_sample() {
        let mut record: Record = serde_json::from_value(json!({
            "since": "2026-01-01T00:00:00Z", "period": 5,
            "samples": [{"seconds": 5, "vm": "a", "active": 1 << 20, "held": 2 << 20, "entitlement": 3 << 20, "ballooned": 0, "stall_some": 90, "stall_full": 80}]
        }))
        .unwrap();
        let expected = "\
since 2026-01-01T00:00:00Z
TIME  VM  ACTIVE  HELD  ENTITLED  BALLOON  SHARED  ZERO  COMPR  SWAPPED  OUT/s  IN/s  STALL%
5s    a     1MiB  2MiB      3MiB       0B      0B    0B     0B       0B     0B    0B   80/90";
        assert_eq!(table(&record), plimsoll_words::samples::local(expected));
        record.samples.clear();
        assert!(table(&record).starts_with("Nothing"));
    }
}
