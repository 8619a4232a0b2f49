use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_protocol::status::HostStatus;
use plimsoll_words::local_time::to_the_second;
use plimsoll_words::stall;

use crate::context::Context;
use crate::interval::Interval;
use crate::selection::Filter;
use crate::top::{self, Look};
use crate::vm_field::{self, VmField};

/// Shortest interval: faster, the daemon would work for the table more than for the VMs, whose
/// facts are a second old.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

const FACTS: &str = "\
The host's lines:
  budget    machine memory that Plimsoll may use: granted to VMs, overhead of their processes, frames (shared pages), free
  held      what guests hold, as their processes say
  kernel    the same, by the host kernel's account
  reserved  what the VMs that run always have, with their overhead
  state     how short of free memory the host is: high (not at all), clear, soft (balloons work), hard (balloons do not suffice), low (VMs above their targets wait)
  stalled   parts of the last 10, 60 and 300 s in which VMs waited for memory, averaged over all VMs that run: the whole VM (full), at least one fault of it (some)

Columns:
  POOL      resource pool that it is in; /: the host itself
  SIZE      memory that the guest sees
  GRANT     machine memory that the host has promised the VM; it never holds more
  HELD      machine memory that its guest holds
  BALLOON   memory in its balloon: the guest may not use it, the host may give it to others
  TARGET    what its balloon is steered to leave it
  ENTITLED  what policy gives it by shares, reservation, limit and activity
  ACTIVE    estimate of what it actively uses
  SHARED    memory that it shares with others, or has several times
  ZERO      pages of zeros, which cost nothing
  SAVED     what it would hold in addition if no pages were shared
  COMPR     memory whose content is compressed
  SWAPPED   memory whose content is in swap space only
  OUT/s     written to swap space in a second; IN/s: read from there
  STALL%    part of the last 10 s in which all of the VM waited for memory / in which some of it did

Examples:
  plimsoll top                        on a terminal: h shows the keys, q leaves
  plimsoll top --once
  plimsoll top --once -o name,held,saved,note
  plimsoll top --interval 5s --json   one object {\"host\": ..., \"vms\": [...]} a line";

fn help() -> String {
    format!("Keys, on a terminal:\n{}\n\n{FACTS}", top::KEYS)
}

#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(crate) struct Top {
    #[command(flatten)]
    filter: Filter,
    /// Print it once and return
    #[arg(long)]
    once: bool,
    /// Columns of what is printed, in this order; on a terminal they are chosen by keys
    #[arg(short = 'o', long, value_name = "COLUMN,...", value_delimiter = ',', value_parser = VmField::named)]
    output: Vec<VmField>,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Interval,
}

fn interval(text: &str) -> Result<Interval, String> {
    let interval: Interval = text.parse()?;
    if interval.0 < MIN_INTERVAL {
        return Err(format!("{interval} is too short: at least {} is allowed", Interval(MIN_INTERVAL)));
    }
    Ok(interval)
}

/// The columns of what is printed where nobody has chosen others.
const COLUMNS: &str = "name pool power size grant held balloon target entitled active shared zero saved compr swapped out in stall note";

impl Top {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        if self.once {
            return context
                .output
                .facts(&Look::new(&context.client, &self.filter)?, |l| self.lines(l).join("\n"));
        }
        if context.output.is_terminal() && self.output.is_empty() {
            return top::run(context, &self.filter, self.interval.0);
        }
        self.blocks(context)
    }

    /// A block of text (or an object in one line) per interval, for pipes and files.
    fn blocks(&self, context: &Context) -> Result<()> {
        loop {
            let next = Instant::now() + self.interval.0;
            let look = Look::new(&context.client, &self.filter)?;
            context.output.fact_line(&look, |l| format!("{}\n\n", self.lines(l).join("\n")))?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn lines(&self, look: &Look) -> Vec<String> {
        let usual = || COLUMNS.split(' ').filter_map(|name| VmField::named(name).ok()).collect();
        lines(look, &if self.output.is_empty() { usual() } else { self.output.clone() })
    }
}

fn lines(look: &Look, fields: &[VmField]) -> Vec<String> {
    let HostStatus {
        budget, granted, overhead, frames, free, held, kernel, ballooned, reserved, state, ..
    } = &look.host;
    let mut lines = vec![
        format!(
            "{}  state {state} (high from {} free), {} of {} VMs on",
            to_the_second(look.at),
            look.host.high_threshold,
            look.host.running,
            look.vms.len()
        ),
        format!("budget {budget} = granted {granted} + overhead {overhead} + frames {frames} + free {free}"),
        format!("held {held}, kernel {kernel}, ballooned {ballooned}, reserved {reserved}"),
        format!(
            "shared {}, zero {}, compressed {}, swapped {}",
            look.host.shared, look.host.zero, look.host.compressed, look.host.swapped
        ),
        format!("stalled {}", stall::of_host(&look.host.stall)),
        String::new(),
    ];
    lines.extend(vm_field::table(fields, &look.vms, look.at).lines());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn the_table_adds_up_before_the_readers_eyes() {
        let at = "2026-01-01T00:00:00.9Z".parse().unwrap();
        let vms = vec![samples::vm("web1"), samples::off("db")];
        let expected = "\
2026-01-01T00:00:00Z  state soft (high from 38MiB free), 2 of 2 VMs on
budget 640MiB = granted 600MiB + overhead 16MiB + frames 9MiB + free 15MiB
held 560MiB, kernel 561MiB, ballooned 300MiB, reserved 144MiB
shared 30MiB, zero 12MiB, compressed 0B, swapped 0B
stalled full 5.26% 2.00% 0.50%, some 6.17% 2.50% 0.75%

NAME  POOL  POWER    SIZE   GRANT    HELD  BALLOON  TARGET  ENTITLED  ACTIVE  SHARED   ZERO  SAVED  COMPR  SWAPPED  OUT/s    IN/s  STALL%  NOTE
web1  /     on     256MiB  200MiB  180MiB    56MiB  160MiB    160MiB   40MiB   24MiB  12MiB  30MiB   8MiB    16MiB   1MiB  512KiB   11/12
db    /     off    256MiB      0B      0B       0B      0B        0B      0B      0B     0B     0B     0B       0B     0B      0B     0/0  the guest shut down";
        let look = Look { at, host: samples::host(), vms };
        let top =
            |output| Top { filter: Filter::default(), once: true, output, interval: Interval(MIN_INTERVAL) };
        assert_eq!(top(Vec::new()).lines(&look).join("\n"), samples::local(expected));
        let chosen = ["name", "up"].map(|name| VmField::named(name).unwrap());
        assert_eq!(top(chosen.to_vec()).lines(&look)[6..], ["NAME  UP", "web1  0s", "db     -"]);
    }
}
