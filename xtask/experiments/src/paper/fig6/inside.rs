//! The experiment itself, in the lab.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::super::lab;

/// What the paper's toucher touches, in MB, one after the other.
pub(super) const STEPS: [u64; 11] = [0, 50, 150, 200, 250, 200, 100, 200, 150, 0, 50];
/// The guest's memory: the largest step and what its kernel needs, with room to tell them apart
/// from all of it.
const SIZE: Bytes = Bytes::mib(384);
/// More than the guest can have: nothing is reclaimed, so that only sampling disturbs it.
const BUDGET: Bytes = Bytes::mib(768);
/// How long the guest may take to answer.
const LIMIT: Duration = Duration::from_secs(240);
/// How often the estimate is looked at.
const LOOK: Duration = Duration::from_secs(1);
const NAME: &str = "toucher";

/// How to measure.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Seconds of a step.
    #[arg(long)]
    pub(super) step: u32,
    /// Seconds that the guest runs in a sampling period.
    #[arg(long)]
    pub(super) period: u32,
}

impl Plan {
    /// As the inner part's command line has it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let line = format!("fig6 --step {} --period {}", self.step, self.period);
        line.split(' ').map(str::to_owned).collect()
    }
}

/// A look at the estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::paper) struct Sample {
    /// Since the first step began.
    pub(super) seconds: f64,
    /// Which step it is in, from zero on.
    pub(super) step: usize,
    /// What the daemon takes the VM to use.
    pub(super) active: Bytes,
    /// What it holds.
    pub(super) held: Bytes,
}

/// Takes the guest through all steps.
pub(in crate::paper) fn measure(plan: &Plan) -> Result<()> {
    let stage = Stage::open_with(BUDGET, &format!("sample_period = {}\n", plan.period))?;
    stage.explained(steps(plan, &stage))
}

fn steps(plan: &Plan, stage: &Stage) -> Result<()> {
    step(&format!("a guest of {SIZE} whose toucher touches more and less, {} s a step", plan.step));
    let mut definition = Definition::new(NAME, SIZE, Runs::Toucher(Version::V6_12));
    definition.reports_free_pages = false;
    stage.run(&definition)?;
    let mut guest = stage.toucher(NAME)?;
    // What the toucher will ever use it uses once: afterwards only sampling tells what it uses now.
    guest.ask(&format!("work {}", Bytes::mib(STEPS.into_iter().max().unwrap_or(0)).0), LIMIT)?;
    stage.wait("the toucher has touched all its memory", LIMIT, |stage| {
        let most = Bytes::mib(STEPS.into_iter().max().unwrap_or(0));
        Ok((stage.vm(NAME)?.held >= most).then_some(()))
    })?;
    let begin = Instant::now();
    for (number, mb) in STEPS.into_iter().enumerate() {
        guest.ask(&format!("work {}", Bytes::mib(mb).0), LIMIT)?;
        let end = begin + Duration::from_secs(u64::from(plan.step)) * u32::try_from(number + 1)?;
        let mut active = Bytes::ZERO;
        while Instant::now() < end {
            let vm = stage.vm(NAME)?;
            active = vm.active;
            lab::sample(&Sample {
                seconds: begin.elapsed().as_secs_f64(),
                step: number,
                active,
                held: vm.held,
            })?;
            thread::sleep(LOOK);
        }
        note(&format!("touching {mb} MB, estimated {active}"));
    }
    Ok(())
}
