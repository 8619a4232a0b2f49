//! The kill campaign: one daemon, a dozen model guests with counters in their pages, and every
//! mechanism at work: balloons, free page reporting, sharing, compression, encrypted swap, samples,
//! and an operator that changes shares, limits, reservations, pools and domains.
//!
//! | file | is |
//! |---|---|
//! | [`point`] | what happens at a point, drawn from its seed |
//! | [`change`] | what the operator changes, and what must hold of it afterwards |
//! | [`guest`], [`population`] | guests at work; all VMs |
//! | [`field`], [`without_ring`] | the daemon and its file systems |
//! | [`attack`] | carries a point out |
//! | [`recovery`], [`leftovers`], [`until_fine`] | what must hold afterwards |
//! | [`look`], [`tally`], [`report`] | what people are told |

mod attack;
mod change;
mod field;
mod guest;
mod leftovers;
mod look;
mod point;
mod population;
mod recovery;
mod report;
mod tally;
mod until_fine;
mod without_ring;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use plimsoll_lab::workspace::{self, note, step};

use self::field::Field;
use self::leftovers::Leftovers;
use self::point::Point;
use self::population::Population;
pub use self::report::Report;
use self::tally::Tally;

const HELP: &str = "\
Each point is one attack on a daemon with a dozen VMs that are all at work: kill -9 or SIGSTOP of the
daemon, of VMMs or of both; an orderly end of the daemon, also while it starts VMs; a full disk, swap space that cannot be written or read, no descriptors
left. Afterwards what was killed is started anew, every guest verifies every page that it wrote, and
the campaign looks for anything that does not agree or was left over: the ledger beside the kernel's
account, the budget, processes, control groups, files, frames, swap space, descriptors, and what was
set of each VM. It ends at the first failure, and prints what a person would look at.

Point number K of a campaign has the seed S + K - 1, so it alone is done again by that seed and
--points 1. What is drawn is the same again, the moments are as close as the machine allows.

Without root, full disks, swap space that cannot be written and few descriptors are left out.

Examples:
  cargo xtask campaign kill --points 1000
  cargo xtask campaign kill --points 1 --seed 4242
  cargo xtask campaign kill --points 200 --vms 20 --json";

/// The command line of the kill campaign.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct KillArgs {
    /// Attacks, one after the other.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    points: u64,
    /// The first point's seed; default: from the clock, and printed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// VMs of 32 MiB.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u8).range(4..=64))]
    vms: u8,
    /// As its last line, print what was done as one JSON object.
    #[arg(long)]
    json: bool,
}

/// VMs of a campaign, unless another number is asked for.
pub const VMS: usize = 12;

/// Runs the campaign and reports; fails where a point fails.
pub(crate) fn run(arguments: &KillArgs) -> Result<ExitCode> {
    workspace::build_for_models()?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    campaign(arguments.points, seed, arguments.vms.into())?.print(arguments.json)
}

/// Attacks `points` times a daemon with `vms` VMs; the first point has the seed `seed`. Ends at the
/// first failure, of which the report tells.
///
/// # Errors
/// The daemon or its VMs cannot be started.
pub fn campaign(points: u64, seed: u64, vms: usize) -> Result<Report> {
    step(&format!("{points} points from seed {seed}, with {vms} VMs"));
    let begin = Instant::now();
    let mut field = Field::open(vms)?;
    let mut campaign = Campaign::begin(&mut field, seed, vms)?;
    note(&format!("all VMs run after {:.1} s", begin.elapsed().as_secs_f64()));
    let (mut done, mut failures) = (0, Vec::new());
    while done < points && failures.is_empty() {
        let point = Point::new(seed.wrapping_add(done), vms);
        done += 1;
        if let Err(error) = campaign.point(done, &point, &mut field) {
            let what = format!("point {done}, {} (--points 1 --seed {})", point.fault, point.seed);
            failures.push(campaign.failure(&what, &error, &field));
        }
    }
    if failures.is_empty()
        && let Err(error) = campaign.end(&field)
    {
        failures.push(campaign.failure("at the end", &error, &field));
    }
    let Campaign { attacks, counts, .. } = campaign;
    Ok(Report { points: done, seed, vms, seconds: begin.elapsed().as_secs_f64(), attacks, counts, failures })
}

/// A campaign under way.
struct Campaign {
    population: Population,
    leftovers: Leftovers,
    attacks: Tally,
    counts: Tally,
}

impl Campaign {
    /// Starts all VMs. Half of them have no io_uring, so that their swap files can be reached.
    fn begin(field: &mut Field, seed: u64, vms: usize) -> Result<Self> {
        let mut leftovers = Leftovers::new(field)?;
        let mut population = Population::new(seed);
        for (count, without_ring) in [(vms / 2, true), (vms - vms / 2, false)] {
            field.stage.kill_daemon()?;
            field.start_daemon(without_ring)?;
            population.grow(&field.stage, count)?;
        }
        leftovers.learn_files(field)?;
        Ok(Self { population, leftovers, attacks: Tally::default(), counts: Tally::default() })
    }

    /// One attack, and what must hold after it.
    fn point(&mut self, number: u64, point: &Point, field: &mut Field) -> Result<()> {
        if point.fault.needs_root() && !field.is_roots() {
            self.counts.count("attacks left out");
            return Ok(());
        }
        let begin = Instant::now();
        let aftermath = attack::carry_out(point, field, &mut self.population, &mut self.counts)?;
        self.attacks.count(point.fault.to_string());
        recovery::recover(field, &mut self.population, &mut self.leftovers, aftermath, &mut self.counts)?;
        let took = begin.elapsed().as_secs_f64();
        note(&format!("{number:>5}  seed {:<12} {:<28} {took:>5.1} s", point.seed, point.fault.to_string()));
        Ok(())
    }

    /// All VMs are stopped: everything is as it was before them.
    fn end(&mut self, field: &Field) -> Result<()> {
        let rounds = self.population.rest()?;
        self.counts.add("rounds of counting of the last guests", rounds);
        self.population.stop(&field.stage)?;
        self.leftovers.nothing(field, &self.population)
    }

    /// Tells of a failure all that a person would look at. Returns it in words.
    fn failure(&self, what: &str, error: &anyhow::Error, field: &Field) -> String {
        note(&look::look(&field.stage, self.population.concerned(error)));
        let failure = format!("{what}: {error:#}");
        note(&format!("FAILED: {failure}"));
        failure
    }
}
