//! The short kill campaign. `cargo xtask campaign kill` is the long one.

use anyhow::{Result, ensure};
use plimsoll_campaigns::kill;

use crate::guests::Guests;

const POINTS: u64 = 50;
/// In the lab, whose emulation is slow.
const POINTS_IN_LAB: u64 = 5;
/// The points from here on meet every kind of attack: a test of theirs says so.
const SEED: u64 = 1;

pub(super) fn run(kinds: Guests) -> Result<()> {
    // The guests are models in any case.
    let points = if kinds == Guests::Models { POINTS } else { POINTS_IN_LAB };
    let failures = kill::campaign(points, SEED, kill::VMS)?.failures;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
