use std::time::Duration;

use plimsoll_policy::{PoolTree, Tax, Thresholds};
use plimsoll_units::{Bytes, Pages};

use crate::demand::Demand;

mod parse;

/// Most steps times VMs that a scenario may take: some minutes of one core. A duration in the wrong
/// unit is told instead of computed all night.
const MAX_WORK: u64 = 200_000_000;

/// Most VMs of a scenario.
const MAX_VMS: u64 = 10_000;

/// A host, its VMs and what they want over time.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called.
    pub title: String,
    /// How long it takes.
    pub duration: Duration,
    /// How far time goes on from one look to the next: the daemon's control period by default.
    pub step: Duration,
    /// Of all random numbers.
    pub seed: u64,
    /// The host.
    pub host: HostSpec,
    /// Its resource pools.
    pub pools: PoolTree,
    /// Its VMs, each count spread out into single ones.
    pub vms: Vec<VmSpec>,
    /// What changes while it runs, in order of time.
    pub changes: Vec<Change>,
}

/// The host.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Machine memory for VMs and their overhead.
    pub memory: Bytes,
    /// Tax on idle memory.
    pub tax: Tax,
    /// At which free memory the state changes.
    pub thresholds: ThresholdRule,
    /// Swap space.
    pub swap: Bytes,
    /// What is written to and read from swap in a second, each.
    pub swap_speed: Bytes,
    /// What a balloon inflates or deflates by in a second.
    pub balloon_speed: Bytes,
    /// What is looked at for pages that can be shared in a second, all VMs together.
    pub scan_speed: Bytes,
    /// Pages sampled in a VM in a period.
    pub sample_pages: u32,
    /// The period of sampling.
    pub sample_period: Duration,
}

/// How thresholds follow from the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdRule {
    /// ESXi's.
    Sliding,
    /// The paper's.
    Fixed,
    /// From a minFree.
    MinFree(Bytes),
}

impl ThresholdRule {
    /// The thresholds of a host with `memory`.
    pub fn of(self, memory: Bytes) -> Thresholds {
        match self {
            Self::Sliding => Thresholds::sliding(memory),
            Self::Fixed => Thresholds::fixed(memory),
            Self::MinFree(min_free) => Thresholds::of_min_free(min_free),
        }
    }
}

/// One VM.
#[derive(Clone, Debug, PartialEq)]
pub struct VmSpec {
    /// Unique.
    pub name: String,
    /// The name that VMs of one count have in common.
    pub group: String,
    /// Guest-physical memory.
    pub size: Pages,
    /// Machine memory that it always has.
    pub reservation: Pages,
    /// Machine memory that it never exceeds; at most its size.
    pub limit: Pages,
    /// Its weight among its siblings.
    pub shares: u64,
    /// A tax of its own.
    pub tax: Option<Tax>,
    /// The name of its pool; `None`: the root.
    pub pool: Option<String>,
    /// Machine memory beside its guest's.
    pub overhead: Pages,
    /// Virtual processors.
    pub vcpus: u8,
    /// When it powers on.
    pub start: Duration,
    /// How long it runs; `None`: to the end.
    pub life: Option<Duration>,
    /// How its guest behaves.
    pub guest: GuestSpec,
}

/// How a guest behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestSpec {
    /// Memory that it writes zeros to while it boots.
    pub zeroes: Pages,
    /// What it zeroes in a second.
    pub zero_speed: Bytes,
    /// Memory that it can bring into use in a second.
    pub touch_speed: Bytes,
    /// Page cache that it fills in a second.
    pub fill_speed: Bytes,
    /// How long after power on its balloon driver is there; `None`: never.
    pub balloon_after: Option<Duration>,
    /// It reports freed pages to the host (free page reporting).
    pub reports_free: bool,
    /// It says when it lacks memory (statistics of the balloon device).
    pub asks: bool,
    /// What it wants.
    pub demand: Demand,
    /// The part of its content that others of its domain have too.
    pub common: f64,
    /// The name of its sharing domain: VMs of the same name share pages.
    pub domain: Option<String>,
}

/// Something that an operator changes while the scenario runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Duration,
    /// What.
    pub what: Changed,
}

/// What changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// The host's tax.
    Tax(Tax),
    /// The host's memory.
    Memory(Bytes),
    /// Parameters of a VM or of all VMs of a group. Admission is not asked.
    Vm {
        /// Its name or its group's.
        name: String,
        /// Its new shares.
        shares: Option<u64>,
        /// Its new reservation.
        reservation: Option<Pages>,
        /// Its new limit.
        limit: Option<Pages>,
    },
}

impl Scenario {
    /// The scenario in `text`, TOML. `read` fetches the text of a file that it names, a recorded
    /// trace.
    ///
    /// # Errors
    /// One line: the place of the key, its value, and which values would do.
    pub fn from_toml(text: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        parse::scenario(text, read)
    }

    /// The number of steps.
    pub(crate) fn steps(&self) -> u64 {
        let steps = self.duration.as_millis() / self.step.as_millis().max(1);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
}
