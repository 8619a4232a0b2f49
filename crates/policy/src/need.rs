//! The memory that a VM needs, from its samples and its waits.
//!
//! Samples show the memory that a VM touches ([`Estimator`]). They cannot show the memory that it
//! lacks. [`Need`] adds that:
//!
//! - **While a VM lacks memory** its need is the estimate from samples and the missing memory. A
//!   VM that waits misses the memory that its faults wait for, a chunk at least, and as much again
//!   as it was given since it began to lack memory. So a VM that waits for one page misses a chunk.
//!   A VM that takes all that it is given, and waits again, misses twice as much each time.
//! - **A VM that stands still uses what it has**, even if its samples show less: it stands still
//!   because that does not suffice. The longer it is stalled, the more of its memory counts as
//!   used, and from half of the time on all of it. The missing memory then doubles every
//!   [`Need::DOUBLING`], however little the VM is given.
//! - **The guest knows what it cannot give**: the memory that is neither available nor in its
//!   balloon, its *committed* memory. (Hyper-V's Dynamic Memory divides memory by that.) It counts
//!   as used by a VM that is stalled for [`Need::PRESSED`] of the time. Pages that a program filled
//!   a minute ago look idle to samples. The guest would have to swap them all the same.
//! - **Waits that follow each other** within [`Need::GRACE`] are one lack: a VM that is served, or
//!   serves itself from its own pages, waits again and again, each time for a moment.
//! - **While a VM lacks memory its need does not fall.** A VM that stands still touches little, and
//!   would look idle.
//! - **Need fades only while the VM executes.** The paper times samples by the VM's execution for
//!   the same reason (Waldspurger 2002, section 5.3): a VM that gets a quarter of the processor
//!   that it wants needs four times as long to touch the memory that it uses.
//! - **Once the VM lacks nothing** the need fades to the estimate, by half in a period of samples.
//!   In that time other VMs can give, and samples see the use of the new memory. A VM that lacks
//!   memory again after its need has fallen was not done: its need then fades at half that pace,
//!   until it has once faded away. So memory does not swing to and fro between two VMs that both
//!   want it. Need beyond the memory that the VM holds fades by half in [`Need::GRACE`]: the VM
//!   does not ask for it any more, and other VMs may.
//!
//! **Memory that a guest calls free is not used.** The guest's own account bounds the estimate from
//! samples: samples see late that a program has ended, the guest knows at once. The account also
//! bounds a need without waits. A guest that calls too much free loses by it; for a guest that
//! calls nothing free its samples decide.
//!
//! **A balloon that grows makes its own VM wait**: the guest's kernel may clear each page before
//! the balloon gets it, and that takes memory for a moment. Such waits are no lack as long as they
//! stall the VM for less than [`Need::INFLATING`] of the time.
//!
//! A guest can make its VM wait by touching memory, and so raise its need. It then gets as much as
//! a VM that uses all its memory: the worth of its shares.

use std::time::Duration;

use plimsoll_units::Pages;

use crate::estimator::Estimator;
use crate::fraction::{count, whole};

/// The signs of a VM's need at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Signs {
    /// The part of `held` that it uses, by its samples.
    pub estimate: Pages,
    /// The most that it uses by its guest's own account, if the guest gives one: see
    /// [`Spare::used`](crate::Spare::used).
    pub used: Option<Pages>,
    /// The memory that its guest's kernel and programs hold by its own account, if the guest gives
    /// one: see [`Spare::committed`](crate::Spare::committed).
    pub committed: Option<Pages>,
    /// The memory that it holds.
    pub held: Pages,
    /// The most that it may hold: the smaller of its limit and size.
    pub most: Pages,
    /// Memory that its faults wait for in vain.
    pub waits: Pages,
    /// Memory that it was given since the last look.
    pub given: Pages,
    /// Memory of its own that it paged since then to serve its faults.
    pub replaced: Pages,
    /// The parts of the last ten seconds, and of the time since the last look, in which some of it
    /// was stalled for memory: 0 to 1.
    pub stall: [f64; 2],
    /// Its balloon has still to grow.
    pub inflates: bool,
    /// The time that it has executed since the last look: it waited neither for memory nor for a
    /// processor.
    pub executed: Duration,
    /// Its guest is short of memory by its own account.
    pub starved: bool,
}

/// The need of one VM over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// The period of the VM's samples.
    period: Duration,
    /// In pages; never below the missing memory beyond the estimate.
    level: f64,
    /// The largest use that its guest's account allows.
    used: f64,
    /// The level when the VM last lacked memory.
    peak: f64,
    /// Pages that the VM lacks; 0 while it lacks none.
    missing: f64,
    /// Pages that it was given, or paged of its own, since it began to lack memory.
    taken: f64,
    /// The time since it last waited.
    quiet: Duration,
    /// The time in which the level fades by half.
    fading: Duration,
}

impl Default for Need {
    /// The need of a new VM whose samples have periods of [`Estimator::PERIOD`].
    fn default() -> Self {
        Self::new(Estimator::PERIOD)
    }
}

impl Need {
    /// Waits no further apart than this are one lack. If shorter, the need of a VM that takes
    /// seconds to use a chunk begins anew with every chunk. If longer, need that has passed counts
    /// for longer.
    pub const GRACE: Duration = Duration::from_secs(5);
    /// The time in which the lack of a VM that stands still doubles. If shorter, an idle VM that
    /// waits for its own balloon to make room seems to need all its memory. If longer, a VM stands
    /// still for longer than its users bear.
    pub const DOUBLING: Duration = Duration::from_secs(2);
    /// Periods of samples in which a need without new signs fades by half at first. If fewer, the
    /// balloons of other VMs stop before they have given enough, and samples, which take a period,
    /// have not seen the use of the new memory. If more, a VM that was busy for a moment keeps
    /// other VMs from memory that it does not use.
    pub const FADING_PERIODS: u32 = 1;
    /// Periods in which the need of a VM that lacks memory again and again fades by half. If fewer,
    /// memory swings to and fro between two VMs. If more, a VM that has finished is believed idle
    /// too late.
    pub const SLOWEST_PERIODS: u32 = 2;
    /// A VM that was stalled for this part of the time counts as waiting, even if it does not wait
    /// at the moment. If less, a page swapped in now and then is a lack. If more, a VM that gets a
    /// page at a time seems to lack nothing.
    pub const STALLED: f64 = 0.05;
    /// The part of the time for which a growing balloon may stall its VM without a lack of memory.
    /// If less, an idle VM seems to need the pages that pass into its balloon. If more, a guest
    /// whose balloon grows while it needs memory stands still for longer.
    pub const INFLATING: f64 = 0.1;
    /// A VM that was stalled for this part of the time uses all that its guest's kernel and
    /// programs hold. If less, an idle VM that waits for a page counts with pages that its programs
    /// have not touched for long. If more, a VM that has just filled its memory stands still while
    /// samples take its first pages for idle.
    pub const PRESSED: f64 = 0.1;

    /// A level has faded away once its distance to the estimate is less than this part of the VM's
    /// limit. A level has fallen once it falls by as much.
    const FELT: f64 = 1.0 / 64.0;

    /// The need of a new VM whose samples have periods of `period`.
    pub fn new(period: Duration) -> Self {
        let fading = period * Self::FADING_PERIODS;
        Self {
            period,
            level: 0.0,
            used: f64::INFINITY,
            peak: 0.0,
            missing: 0.0,
            taken: 0.0,
            quiet: Duration::MAX,
            fading,
        }
    }

    /// Takes the `signs` that are seen after `elapsed`.
    pub fn observe(&mut self, elapsed: Duration, signs: &Signs) {
        let [held, most, given, replaced] = [signs.held, signs.most, signs.given, signs.replaced].map(count);
        self.used = signs.used.map_or(f64::INFINITY, count);
        let estimate = count(signs.estimate).min(self.used);
        let [lately, now] = signs.stall;
        let [stall, quickens] = [lately, lately.max(now)].map(|part| (part * 2.0).clamp(0.0, 1.0));
        let committed = signs.committed.map_or(0.0, count).min(held);
        let pressed = (lately / Self::PRESSED).min(1.0);
        let uses = estimate + (stall * (held - estimate)).max(pressed * (committed - estimate)).max(0.0);
        let felt = most * Self::FELT;
        self.quiet = self.quiet.saturating_add(elapsed);
        let lacked = self.quiet <= Self::GRACE;
        self.taken = if lacked { self.taken + given + replaced } else { 0.0 };
        let waits = signs.waits > Pages::ZERO || signs.replaced > Pages::ZERO || now >= Self::STALLED;
        if waits && !(signs.inflates && lately < Self::INFLATING) {
            if !lacked && self.level + felt < self.peak {
                self.fading = (self.fading * 2).min(self.period * Self::SLOWEST_PERIODS);
            }
            let least = count(signs.waits.max(Pages::CHUNK)).max(self.taken);
            let doublings =
                quickens * self.quiet.min(Self::GRACE).as_secs_f64() / Self::DOUBLING.as_secs_f64();
            let grown = if quickens > 0.0 { self.missing * 2f64.powf(doublings) } else { 0.0 };
            self.missing = grown.max(least).min((most - uses).max(0.0));
            self.quiet = Duration::ZERO;
            self.level = self.level.max(uses + self.missing);
        } else if !lacked {
            self.missing = 0.0;
            if !signs.starved {
                let left =
                    |half_life: Duration| 0.5f64.powf(signs.executed.as_secs_f64() / half_life.as_secs_f64());
                let holds = held.max(estimate);
                let (within, above) = (self.level.min(holds) - estimate, self.level - holds);
                let faded =
                    estimate + within.max(0.0) * left(self.fading) + above.max(0.0) * left(Self::GRACE);
                self.level = faded.min(self.used);
                if self.level - estimate < felt {
                    self.fading = self.period * Self::FADING_PERIODS;
                }
            }
        }
        self.level = self.level.max(estimate).min(most.max(estimate));
        if self.quiet == Duration::ZERO {
            self.peak = self.level;
        }
    }

    /// The memory that the VM is taken to use: the larger of its need, and of `estimate`, which
    /// comes from samples and is bounded by its guest's account.
    pub fn active(&self, estimate: Pages) -> Pages {
        whole(count(estimate).min(self.used).max(self.level))
    }

    /// The memory that it lacks.
    pub fn missing(&self) -> Pages {
        whole(self.missing)
    }
}

#[cfg(test)]
mod tests;
