//! The experiment itself, in the lab.

use anyhow::Result;
use clap::Args;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::step;
use plimsoll_operate::Stage;
use plimsoll_operate::share;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::super::fleet::{Fleet, Picture, SETTINGS};
use super::super::lab;
use crate::guests::debian_disk::Work;
use crate::guests::worker::Job;

/// Machine memory for a fleet: enough, so that nothing but sharing takes any from it.
const BUDGET: Bytes = Bytes::mib(3 << 10);

/// How to measure.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Units of work of each guest, before and after what guests share has settled.
    #[arg(long)]
    units: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { units: 10 }
    }
}

impl Plan {
    /// As the inner part's command line has it.
    pub(super) fn arguments(&self) -> Vec<String> {
        format!("fig5 --units {}", self.units).split(' ').map(str::to_owned).collect()
    }
}

/// A fleet.
struct Composition {
    /// What it is like, for people.
    name: &'static str,
    guests: u32,
    /// Kernels, kinds of work and sizes (in MiB) of its guests, by turns.
    kernels: &'static [Version],
    work: &'static [Work],
    sizes: &'static [u64],
    /// The sharing domain of its guests.
    sharing: &'static str,
}

const WORK: [Work; 3] = [Work::Words, Work::Numbers, Work::Search];
const SIZES: [u64; 2] = [128, 192];

const FLEETS: [Composition; 4] = [
    Composition {
        name: "one kernel, mixed work",
        guests: 6,
        kernels: &[Version::V6_12],
        work: &WORK,
        sizes: &SIZES,
        sharing: "fleet",
    },
    Composition {
        name: "two kernels, mixed work",
        guests: 6,
        kernels: &[Version::V6_12, Version::V6_12, Version::V6_1, Version::V6_1],
        work: &WORK,
        sizes: &SIZES,
        sharing: "fleet",
    },
    Composition {
        name: "the same, each alone",
        guests: 6,
        kernels: &[Version::V6_12, Version::V6_12, Version::V6_1, Version::V6_1],
        work: &WORK,
        sizes: &SIZES,
        sharing: "own",
    },
    Composition {
        name: "the same, zero pages",
        guests: 6,
        kernels: &[Version::V6_12, Version::V6_12, Version::V6_1, Version::V6_1],
        work: &WORK,
        sizes: &SIZES,
        sharing: "zero",
    },
];

/// What a fleet shares at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::paper) struct Sample {
    pub(super) fleet: String,
    pub(super) guests: u32,
    /// When what they share grew no more.
    pub(super) settled: Picture,
    /// After more work.
    pub(super) working: Picture,
}

/// Measures one fleet after the other.
pub(in crate::paper) fn measure(plan: &Plan) -> Result<()> {
    for composition in &FLEETS {
        let stage = Stage::open_with(BUDGET, SETTINGS)?;
        stage.explained(one(plan, composition, &stage))?;
    }
    Ok(())
}

fn one(plan: &Plan, composition: &Composition, stage: &Stage) -> Result<()> {
    step(&format!("{} guests: {}", composition.guests, composition.name));
    let mut fleet = Fleet::new(share());
    lab::begin()?;
    for number in 0..composition.guests {
        fleet.add(stage, composition.job(number)?)?;
    }
    fleet.work(plan.units)?;
    let settled = fleet.settle(stage)?;
    fleet.work(plan.units)?;
    let working = fleet.picture(stage)?;
    let (fleet, guests) = (composition.name.to_owned(), composition.guests);
    lab::sample(&Sample { fleet, guests, settled, working })
}

impl Composition {
    /// A guest of it.
    fn job(&self, number: u32) -> Result<Job> {
        let turn = usize::try_from(number)?;
        Ok(Job {
            name: format!("guest{number}"),
            kernel: self.kernels[turn % self.kernels.len()],
            size: Bytes::mib(self.sizes[turn % self.sizes.len()]),
            sharing: self.sharing.to_owned(),
            work: self.work[turn % self.work.len()],
            seed: number * 1000,
        })
    }
}
