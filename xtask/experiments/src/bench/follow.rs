//! A model guest that follows a demand: it uses what the curve says, all the time, in regions with
//! seeds from 1, and frees the rest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_operate::toucher::Toucher;
use plimsoll_sim::Demand;
use plimsoll_units::Bytes;

/// Memory comes and goes in units of this: a model guest has at most 64 regions.
const UNIT: Bytes = Bytes::mib(4);
/// All that a guest uses is touched about once in this time, on a busy machine in some times of it:
/// within a period of samples.
const ROUND: Duration = Duration::from_secs(1);
/// How often a guest that uses nothing looks at what it wants.
const TICK: Duration = Duration::from_millis(100);
/// A guest that gets no memory for so long never gets it.
const LIMIT: Duration = Duration::from_secs(120);

/// Lets `guest` follow `demand` from `begin` until it is `over`.
pub(crate) fn follow(guest: &mut Toucher, demand: &Demand, begin: Instant, over: &AtomicBool) -> Result<()> {
    let mut has = 0;
    let mut next = 0;
    while !over.load(Ordering::Relaxed) {
        let wants = demand.curve.at(begin.elapsed()).active.0.div_ceil(UNIT.0);
        if has < wants {
            has += 1;
            guest.ask(&format!("touch {} {has}", UNIT.0), LIMIT)?;
        } else if has > wants {
            guest.ask(&format!("free {has}"), LIMIT)?;
            has -= 1;
        } else if has > 0 {
            next = next % has + 1;
            guest.ask(&format!("verify {next}"), LIMIT)?;
            thread::sleep(ROUND.div_f64(f64::from(u32::try_from(has)?)));
        } else {
            thread::sleep(TICK);
        }
    }
    guest.verify_all(LIMIT).map(drop)
}
