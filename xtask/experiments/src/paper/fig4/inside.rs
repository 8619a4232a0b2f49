//! The experiment itself, in the lab.

use anyhow::Result;
use clap::Args;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::Stage;
use plimsoll_operate::share;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use super::super::fleet::{Fleet, Picture, SETTINGS};
use super::super::lab;
use crate::guests::debian_disk::Work;
use crate::guests::worker::Job;

/// Guest-physical memory of each VM: the smallest in which Debian's kernel leaves most to others.
/// The paper's have 40 MB.
pub(super) const SIZE: Bytes = Bytes::mib(128);
/// Machine memory for all VMs: enough for all of them at once, so that nothing but sharing takes
/// any from them.
const BUDGET: Bytes = Bytes::mib(5 << 10);

/// How to measure.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub struct Plan {
    /// Numbers of guests, in increasing order.
    #[arg(long, value_delimiter = ',')]
    pub(super) guests: Vec<u32>,
    /// Turns of work with sharing, and without, for each number of guests.
    #[arg(long)]
    pub(super) rounds: u32,
    /// Units of work that guests do together in a turn.
    #[arg(long)]
    pub(super) units: u32,
}

impl Plan {
    /// As the inner part's command line has it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let guests = self.guests.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let line = format!("fig4 --guests {guests} --rounds {} --units {}", self.rounds, self.units);
        line.split(' ').map(str::to_owned).collect()
    }

    /// Units of work of each of `guests` guests in a turn.
    pub(super) fn each(&self, guests: u32) -> u32 {
        (self.units / guests).max(1)
    }
}

/// A measurement with a number of guests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::paper) enum Sample {
    /// What they share: in round 0 when that grows no more, else at the end of a turn of work.
    Picture { guests: u32, round: u32, picture: Picture },
    /// How much of their memory they would not need if all of it were found that is there more than
    /// once, or zero.
    Mergeable { guests: u32, bytes: Bytes },
    /// A turn of work of guests that share, or do not.
    Turn { guests: u32, round: u32, shares: bool },
}

/// Grows two fleets, of which one shares and the other does not, and measures them by turns.
pub(in crate::paper) fn measure(plan: &Plan) -> Result<()> {
    let stage = Stage::open_with(BUDGET, SETTINGS)?;
    stage.explained(grow(plan, &stage))
}

fn grow(plan: &Plan, stage: &Stage) -> Result<()> {
    let mut sharing = Fleet::new(share());
    let mut alone = Fleet::new(share());
    for &guests in &plan.guests {
        step(&format!("{guests} guests of {SIZE} that share, and as many that do not"));
        enlarge(&mut sharing, stage, "fleet", guests)?;
        if plan.rounds > 0 {
            enlarge(&mut alone, stage, "off", guests)?;
        }
        let units = plan.each(guests);
        // What a guest has only begun to write is not measured.
        sharing.work(units)?;
        alone.work(units)?;
        let picture = sharing.settle(stage)?;
        lab::sample(&Sample::Picture { guests, round: 0, picture })?;
        lab::sample(&Sample::Mergeable { guests, bytes: sharing.mergeable(stage)? })?;
        for round in 1..=plan.rounds {
            // By turns also within a round: what grows tired or warm in it favours neither.
            if round % 2 == 1 {
                turn(&mut alone, &sharing, stage, units, &Sample::Turn { guests, round, shares: false })?;
            }
            turn(&mut sharing, &alone, stage, units, &Sample::Turn { guests, round, shares: true })?;
            let picture = sharing.picture(stage)?;
            lab::sample(&Sample::Picture { guests, round, picture })?;
            if round % 2 == 0 {
                turn(&mut alone, &sharing, stage, units, &Sample::Turn { guests, round, shares: false })?;
            }
            note(&format!("round {round} of {}: {} reclaimed", plan.rounds, picture.reclaimed));
        }
    }
    Ok(())
}

/// A turn of work of a fleet, while the other stands still.
fn turn(fleet: &mut Fleet, other: &Fleet, stage: &Stage, units: u32, sample: &Sample) -> Result<()> {
    let still = other.stop(stage)?;
    // Until the daemon has seen that the host is idle no more, guests look for pages as if it were.
    fleet.work((units / 4).max(1))?;
    lab::begin()?;
    fleet.work(units)?;
    lab::sample(sample)?;
    drop(still);
    Ok(())
}

/// Adds guests that are all the same but for whether they share.
fn enlarge(fleet: &mut Fleet, stage: &Stage, sharing: &str, guests: u32) -> Result<()> {
    for number in u32::try_from(fleet.len())? + 1..=guests {
        let name = format!("{sharing}{number}");
        let sharing = sharing.to_owned();
        fleet.add(
            stage,
            Job { name, kernel: Version::V6_12, size: SIZE, sharing, work: Work::All, seed: 1 },
        )?;
    }
    Ok(())
}
