//! `plimsoll plan run`: simulates a scenario, and prints its course.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_sim::simulate;

use super::{chart, csv, facts, report, scenario_file, svg};
use crate::output::Output;

const HELP: &str = "\
A scenario is a TOML file. It needs duration, the memory of the host, and of each VM name, size and demand; all else may be left out:
  duration = \"4h\"                 how long it takes
  step = \"1s\"                     the daemon's control period if left out
  seed = 1                        of all random numbers: the same seed gives the same course
  [host]
  memory = \"64GiB\"                for VMs and their overhead
  tax = 0.75                      on idle memory
  thresholds = \"sliding\"          ESXi's; or \"fixed\", the paper's, or a size, minFree
  swap = \"32GiB\"                  none if left out
  overhead = \"32MiB\"              of each VM; by the daemon's formula if left out
  swap_speed, balloon_speed, scan_speed = \"100MiB/s\"
  sample_pages = 100, sample_period = \"15s\"
  [[pool]]                        name, parent, shares, reservation, limit, expandable
  [[vm]]                          name, size; count, every: time between the starts of a count; start, life, reservation, limit, shares, tax, pool, vcpus, overhead
  zeroes_at_boot = \"all\"          writes zeros there while it boots, at zero_speed
  touch_speed, fill_speed         memory that it brings into use, and into its page cache, a second
  balloon_after = \"30s\"           when its balloon driver starts; or \"never\"
  reports_free, asks = true       free page reporting; reports when it lacks memory
  common = 0.3, share_domain      the part of its content that VMs of the domain have in common
  [vm.demand]                     one of points, cycle, trace; jitter; spread: a random delay
  points = [{ at, ramp, active, content }, ...]
  cycle = { low, high, period, peak, duty }            a sine wave, with duty a square one
  trace = { file = \"web1.csv\", vm = \"web1\", repeat }   columns seconds,vm,active_bytes,held_bytes
  [[change]]                      at; tax, memory, or vm with shares, reservation, limit

Examples:
  plimsoll plan figure8
  plimsoll plan run host.toml --seed 7
  plimsoll plan run host.toml --csv host.csv --svg host.svg --json | jq .states";

/// Simulate a host and its VMs over time, as a scenario describes them
///
/// The daemon's own policy decides; guests, balloons, page sharing, swap and the sampling of active
/// memory are modelled.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Run {
    /// The scenario's file, or the name of a shipped one: figure7, figure8, sandbox-host,
    /// vdi-morning, database-neighbour
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    /// Write the course of every VM to this file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw the course into this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Seed of random numbers, instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Run {
    pub(super) fn run(&self, output: &Output) -> Result<()> {
        let mut scenario = scenario_file::read(&self.scenario)?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let course = simulate(&scenario);
        if let Some(path) = &self.csv {
            write(path, &csv::text(&scenario, &course))?;
        }
        if let Some(path) = &self.svg {
            write(path, &svg::text(&scenario, &course))?;
        }
        let chart = chart::text(&scenario, &course, colours(output));
        let text = report::text(&scenario, &course, &chart);
        if colours(output) {
            // Colours are control characters, which facts must not have. Names and titles have
            // none.
            return output.bytes(format!("{text}\n").as_bytes());
        }
        output.facts(&facts::Facts::new(&scenario, &course), |_| text)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Whether to print colours (no-color.org).
fn colours(output: &Output) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    !output.is_json() && std::io::stdout().is_terminal() && !unwanted
}
