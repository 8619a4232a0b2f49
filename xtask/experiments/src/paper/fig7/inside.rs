//! The experiment itself, in the lab.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::share;
use plimsoll_protocol::Burst;
use plimsoll_protocol::control::RateLimit;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::super::lab;
use crate::guests::dbench::{Dbench, Load};

/// Guest-physical memory of each VM.
pub(super) const SIZE: Bytes = Bytes::mib(256);
/// Machine memory of both together.
pub(super) const FOR_VMS: Bytes = Bytes::mib(360);
/// More than the pool of both VMs may have: what they get the pool's limit decides.
const BUDGET: Bytes = Bytes::mib(640);
/// How long balloons may take to bring the VMs below the pool's limit.
const SETTLED: Duration = Duration::from_secs(240);
/// How often allocations are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The VMs' disks: as those of the paper's time, which took some 10 ms for a request. On a disk
/// that costs nothing, memory for a page cache brings nothing either.
pub(super) const DISK: RateLimit =
    RateLimit { operations: Some(100), bandwidth: Some(Bytes::mib(20)), burst: Burst::SHORTEST };
/// The pool, and the VMs in it.
const POOL: &str = "figure7";
const VMS: [&str; 2] = ["idle", "busy"];
/// The taxes of the two phases.
pub(super) const TAXES: [f64; 2] = [0.0, 0.75];

/// How to measure.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Seconds of a phase.
    #[arg(long)]
    pub(super) phase: u32,
    /// Seconds that a guest runs in a sampling period.
    #[arg(long)]
    pub(super) period: u32,
    /// A run of dbench.
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
}

impl Plan {
    /// As the inner part's command line has it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Self { phase, period, load: Load { clients, megabytes } } = self;
        let line =
            format!("fig7 --phase {phase} --period {period} --clients {clients} --megabytes {megabytes}");
        line.split(' ').map(str::to_owned).collect()
    }
}

/// A measurement. Seconds count from the beginning of the first phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::paper) enum Sample {
    /// What the VMs have: the idle one and the busy one.
    Memory { seconds: f64, phase: usize, held: [Bytes; 2], entitled: [Bytes; 2], active: [Bytes; 2] },
    /// A run of dbench in the busy one, and what it moved, in MB.
    Run { from: f64, to: f64, phase: usize, moved: f64 },
}

/// Starts both VMs and takes them through both phases.
pub(in crate::paper) fn measure(plan: &Plan) -> Result<()> {
    let stage = Stage::open_with(BUDGET, &format!("sample_period = {}\n", plan.period))?;
    stage.explained(phases(plan, &stage))
}

fn phases(plan: &Plan, stage: &Stage) -> Result<()> {
    step(&format!("two VMs of {SIZE} in a pool with a limit of {FOR_VMS}"));
    let [mut idle, mut busy] = start(stage)?;
    // One has used all its memory once and will not again; the other works from here on. The pool
    // comes afterwards: a VM that fills its memory against a limit waits for its own balloon.
    idle.fill(SIZE)?;
    busy.fill(SIZE)?;
    stage.succeed(&["pool", "create", POOL, "--limit", &FOR_VMS.to_string()])?;
    for name in VMS {
        stage.succeed(&["set", name, "--pool", POOL])?;
    }
    stage.wait("the pool keeps its limit", SETTLED, |stage| {
        Ok((sum(held(stage)?) <= FOR_VMS).then_some(()))
    })?;
    busy.run(plan.load)?;
    let begin = Instant::now();
    for (phase, tax) in TAXES.into_iter().enumerate() {
        step(&format!("idle memory is taxed with {tax}"));
        for name in VMS {
            stage.succeed(&["set", name, "--tax", &tax.to_string()])?;
        }
        let end = begin + Duration::from_secs(u64::from(plan.phase)) * u32::try_from(phase + 1)?;
        while_looking(stage, begin, phase, || {
            while Instant::now() < end {
                let from = begin.elapsed().as_secs_f64();
                lab::begin()?;
                let moved = busy.run(plan.load)?;
                let to = begin.elapsed().as_secs_f64();
                lab::sample(&Sample::Run { from, to, phase, moved })?;
                let held = held(stage)?.map(|bytes| bytes.to_string());
                note(&format!(
                    "dbench moved {moved:.0} MB in {:.0} s; idle has {}, busy has {}",
                    to - from,
                    held[0],
                    held[1]
                ));
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn start(stage: &Stage) -> Result<[Dbench; 2]> {
    let [idle, busy] = VMS.map(|name| Dbench::start(stage, &share(), name, SIZE, DISK));
    Ok([idle?, busy?])
}

fn held(stage: &Stage) -> Result<[Bytes; 2]> {
    let [idle, busy] = VMS.map(|name| stage.vm(name).map(|vm| vm.held));
    Ok([idle?, busy?])
}

fn sum([idle, busy]: [Bytes; 2]) -> Bytes {
    idle + busy
}

/// Runs `work` while looking at what the VMs have.
fn while_looking(
    stage: &Stage,
    begin: Instant,
    phase: usize,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let look = || -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            let [idle, busy] = VMS.map(|name| stage.vm(name));
            let (idle, busy) = (idle?, busy?);
            lab::sample(&Sample::Memory {
                seconds: begin.elapsed().as_secs_f64(),
                phase,
                held: [idle.held, busy.held],
                entitled: [idle.entitlement, busy.entitlement],
                active: [idle.active, busy.active],
            })?;
            thread::sleep(LOOK);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let looking = scope.spawn(look);
        let result = work();
        over.store(true, Ordering::Relaxed);
        let looked = looking.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        result.and(looked.context("looking at what the VMs have"))
    })
}
