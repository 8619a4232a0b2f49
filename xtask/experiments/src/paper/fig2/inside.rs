//! The experiment itself, in the lab.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::share;
use plimsoll_protocol::control::RateLimit;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::super::lab;
use crate::guests::dbench::{Dbench, Load};

/// The sizes that are measured in both ways, in MB.
pub(super) const SIZES: [u64; 4] = [128, 160, 192, 224];
/// The size from which is ballooned, in MB.
pub(super) const FULL: u64 = 256;
/// Machine memory for all VMs: enough for all of them at once, so that only a limit makes a balloon
/// grow.
const BUDGET: Bytes = Bytes::mib(2048);

/// How long a balloon may take to its size.
const BALLOON: Duration = Duration::from_secs(240);

/// The VM whose balloon is moved.
const BALLOONED: &str = "ballooned";

/// How to measure.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Plan {
    /// How often each size is measured.
    #[arg(long)]
    pub(super) rounds: u32,
    /// A run of dbench.
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
}

impl Plan {
    /// As the inner part's command line has it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Self { rounds, load: Load { clients, megabytes } } = self;
        let line = format!("fig2 --rounds {rounds} --clients {clients} --megabytes {megabytes}");
        line.split(' ').map(str::to_owned).collect()
    }
}

/// One run of dbench.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::paper) struct Sample {
    /// From one on.
    pub(super) round: u32,
    /// Memory that the guest had, in MB.
    pub(super) mb: u64,
    /// Its balloon had the rest.
    pub(super) ballooned: bool,
    /// What dbench moved, in MB.
    pub(super) moved: f64,
}

/// Starts all VMs and measures them by turns.
pub(in crate::paper) fn measure(plan: &Plan) -> Result<()> {
    let stage = Stage::open_with(BUDGET, "")?;
    stage.explained(rounds(plan, &stage))
}

fn rounds(plan: &Plan, stage: &Stage) -> Result<()> {
    step(&format!("starting a guest of each size, and one of {FULL} MB to be ballooned"));
    // As fast as the lab's disk.
    let any = RateLimit::default();
    let mut configured = Vec::new();
    for mb in SIZES.into_iter().chain([FULL]) {
        configured
            .push((mb, Dbench::start(stage, &share(), &format!("configured-{mb}"), Bytes::mib(mb), any)?));
    }
    let mut ballooned = Dbench::start(stage, &share(), BALLOONED, Bytes::mib(FULL), any)?;
    for round in 0..=plan.rounds {
        step(&if round == 0 { "warming up".to_owned() } else { format!("round {round} of {}", plan.rounds) });
        for (mb, guest) in &mut configured {
            let run = |ballooned: bool, guest: &mut Dbench| -> Result<()> {
                let begin = Instant::now();
                guest.fill(Bytes::mib(*mb))?;
                let filled = begin.elapsed();
                // The first runs are not counted: file systems are new in them.
                let mut load = plan.load;
                if round == 0 {
                    load.megabytes = load.megabytes.div_ceil(5);
                }
                lab::begin()?;
                let moved = guest.run(load)?;
                let how = if ballooned { "ballooned to" } else { "configured with" };
                note(&format!(
                    "{how} {mb} MB: {moved:.0} MB in {:.0} s, filled in {:.0} s",
                    (begin.elapsed() - filled).as_secs_f64(),
                    filled.as_secs_f64()
                ));
                if round > 0 {
                    lab::sample(&Sample { round, mb: *mb, ballooned, moved })?;
                }
                Ok(())
            };
            // By turns also within a size: what grows tired or warm in a round favours neither.
            if round % 2 == 1 {
                run(false, guest)?;
            }
            if *mb < FULL {
                steer(stage, Bytes::mib(*mb))?;
                run(true, &mut ballooned)?;
            }
            if round % 2 == 0 {
                run(false, guest)?;
            }
        }
    }
    Ok(())
}

/// Gives the VM a limit, as an operator would, and waits until its balloon has the rest.
fn steer(stage: &Stage, limit: Bytes) -> Result<()> {
    stage.succeed(&["set", BALLOONED, "--limit", &limit.to_string()])?;
    let begin = Instant::now();
    let rest = Bytes::mib(FULL) - limit;
    let mut last = None;
    let reached = stage.wait(&format!("the balloon has {rest}"), BALLOON, |stage| {
        let vm = stage.vm(BALLOONED)?;
        last = Some((vm.ballooned, vm.held));
        Ok((vm.ballooned == rest && vm.held <= limit).then_some(vm))
    });
    let vm = reached.with_context(|| format!("ballooned and held: {last:?}"))?;
    note(&format!(
        "balloon of {} after {:.0} s, held {}",
        vm.ballooned,
        begin.elapsed().as_secs_f64(),
        vm.held
    ));
    Ok(())
}
