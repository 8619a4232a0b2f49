//! How long policy takes to decide what all VMs of a host are to have.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use plimsoll_lab::workspace;
use serde::{Deserialize, Serialize};

use super::goal::Goal;

/// 10,000 VMs in at most this many microseconds: a recomputation a second then takes half a percent
/// of a core.
const MOST_US: f64 = 5_000.0;
/// Time per `n log n` may grow by this much from 1,000 to 100,000 VMs: the data outgrow the
/// processor's caches meanwhile.
const MOST_GROWTH: f64 = 1.5;

const NOT_SHOWN: &str = "Processor time of one thread on this machine, the fastest of 31 runs: whatever else runs only adds to \
    it. The whole of `decide`: entitlements with their causes and bounds, targets, balloons, what each mechanism is to take; \
    \"divide\" is the entitlements alone. Three levels of pools, 25 VMs in the innermost, two thirds of what all could hold, \
    state soft. \"flat\" is the entitlements of the same VMs without pools, the baseline. Not shown: building the tree of named pools, which happens only when pools change.";

/// Why there is no figure for the change of one VM.
const ONE_CHANGE: &str = "A change of one VM recomputes all. It moves the water level and with it the entitlement of every VM \
    that no bound holds, so the answer itself is thousands of numbers; activity changes for all VMs in every period anyway. \
    See the documentation of plimsoll_policy's division.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask bench policy\n  cargo xtask bench policy --json")]
pub struct PolicyArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One host, as the measuring program tells it.
#[derive(Debug, Deserialize, Serialize)]
struct Run {
    vms: u32,
    pools: u32,
    /// The fastest run.
    us: f64,
    median_us: f64,
    /// The entitlements alone.
    divide_us: f64,
    /// The entitlements of the same VMs without pools.
    flat_us: f64,
}

impl Run {
    /// Nanoseconds per VM and doubling of their number: the same for all hosts if time grows as `n
    /// log n`.
    fn per_n_log_n(&self) -> f64 {
        let n = f64::from(self.vms);
        self.us * 1e3 / (n * n.log2())
    }
}

#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Run>,
    goals: Vec<Goal>,
    one_change: &'static str,
    not_shown: &'static str,
}

/// Measures and reports; fails where a goal is missed.
#[expect(clippy::print_stdout, reason = "the report is the result")]
pub(crate) fn run(arguments: &PolicyArgs) -> Result<ExitCode> {
    workspace::step("measuring policy's decisions");
    let report = report(measure()?)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", text(&report));
    }
    Ok(if report.goals.iter().all(|g| g.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure() -> Result<Vec<Run>> {
    let mut cargo = preflight::cargo::command();
    cargo.current_dir(workspace::root());
    cargo.args(["bench", "--quiet", "--locked", "--package", "plimsoll-policy", "--bench", "division"]);
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting cargo bench")?;
    if !output.status.success() {
        bail!("the measurement failed: see its messages above");
    }
    let text = String::from_utf8(output.stdout).context("reading what was measured")?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("reading {line:?}"))).collect()
}

fn report(runs: Vec<Run>) -> Result<Report> {
    let of = |vms| runs.iter().find(|r| r.vms == vms).with_context(|| format!("{vms} VMs were not measured"));
    let growth = of(100_000)?.per_n_log_n() / of(1_000)?.per_n_log_n();
    let goals = vec![
        Goal::at_most("microseconds for 10000 VMs", of(10_000)?.us, MOST_US),
        Goal::at_most("time per n log n for 100000 VMs, against 1000", growth, MOST_GROWTH),
    ];
    ensure!(growth.is_finite(), "1000 VMs took no time at all: the clock does not work");
    Ok(Report { runs, goals, one_change: ONE_CHANGE, not_shown: NOT_SHOWN })
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:>7}  {:>6}  {:>10}  {:>10}  {:>10}  {:>10}  {:>14}",
        "VMS", "POOLS", "BEST us", "MEDIAN us", "DIVIDE us", "FLAT us", "ns / (n log n)"
    )];
    lines.extend(report.runs.iter().map(|r| {
        format!(
            "{:>7}  {:>6}  {:>10.1}  {:>10.1}  {:>10.1}  {:>10.1}  {:>14.1}",
            r.vms,
            r.pools,
            r.us,
            r.median_us,
            r.divide_us,
            r.flat_us,
            r.per_n_log_n()
        )
    }));
    lines.extend(report.goals.iter().map(Goal::to_string));
    lines.extend([report.one_change.to_owned(), report.not_shown.to_owned()]);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(us: f64) -> Vec<Run> {
        let run = |vms| Run {
            vms,
            pools: 1,
            us: f64::from(vms) * us,
            median_us: 1.0,
            divide_us: 1.0,
            flat_us: 1.0,
        };
        [1_000, 10_000, 100_000].map(run).into()
    }

    #[test]
    fn goals_are_judged() {
        let met = |us| report(runs(us)).unwrap().goals.iter().map(|g| g.met).collect::<Vec<_>>();
        assert_eq!((met(0.5), met(0.6)), (vec![true, true], vec![false, true]));
        let mut steep = runs(0.1);
        steep[2].us *= 3.0;
        assert!(!report(steep).unwrap().goals[1].met);
        assert!(report(runs(0.0)).is_err() && report(vec![]).is_err());
    }

    #[test]
    fn the_report_tells_every_run_goal_and_remark() {
        let text = text(&report(runs(0.5)).unwrap());
        assert!(text.contains("100000") && text.contains("met: microseconds") && text.contains("Not shown"));
    }
}
