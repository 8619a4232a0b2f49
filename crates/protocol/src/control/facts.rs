use std::time::Duration;

use plimsoll_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

/// Most network interfaces of a VM, whatever its bus.
pub const MAX_NETS: usize = 8;

/// How often a VMM reports its [`Facts`] unasked.
pub const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// What a VMM reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Pages that the VMM believes it may hold.
    pub grant: Pages,
    /// Pages that it holds for its guest; at most `grant`.
    pub held: Pages,
    /// Pages that faults wait for beyond the grant.
    pub wanted: Pages,
    /// Pages in the balloon, as the pmap counts them.
    pub ballooned: Pages,
    /// The balloon's size as its driver last reported it.
    pub balloon_actual: Pages,
    /// The target that the VMM steers to.
    pub balloon_target: Pages,
    /// Whether the guest's balloon driver has been seen.
    pub balloon_driver: bool,
    /// Pages of the guest whose content is in the compressed store.
    pub compressed: Pages,
    /// Machine pages that the store takes: part of `held`.
    pub store: Pages,
    /// Pages of the guest whose content is in swap space only.
    pub swapped: Pages,
    /// Pages compressed since the VMM started.
    pub zipped: u64,
    /// Pages decompressed again because they were touched.
    pub unzipped: u64,
    /// Pages written to swap space.
    pub swapped_out: u64,
    /// Pages read from there.
    pub swapped_in: u64,
    /// The VM's processors stand still: see [`ToVmm::Paging`](super::ToVmm::Paging).
    pub blocked: bool,
    /// The VM's processors stand still because its operator said so: see
    /// [`ToVmm::Pause`](super::ToVmm::Pause).
    pub paused: bool,
    /// What was last asked of paging could not be taken.
    pub paging_stuck: bool,
    /// Swap space could not be written: nothing more is swapped out.
    pub swap_failed: bool,
    /// Pages of the guest that read a frame of its domain: no part of `held`.
    pub shared: Pages,
    /// Pages of the guest that were found to hold zeros, and cost nothing.
    pub zero: Pages,
    /// Pages looked at for sharing since the VMM started.
    pub scanned: u64,
    /// Pages that came to read a frame.
    pub merged: u64,
    /// Pages that were found to hold zeros.
    pub zeroed: u64,
    /// Pages that were shared, zero pages included, until the guest wrote to them.
    pub broken: u64,
    /// Pages that were not what their frame holds.
    pub mismatched: u64,
    /// Processor time that looking for pages has taken.
    pub scan_cpu: Duration,
    /// The VMM is near the most mappings that its process may have: only runs of pages and zero
    /// pages are shared.
    pub mappings_full: bool,
    /// Chunks by state.
    pub chunks: Chunks,
    /// Faults served since the VMM started.
    pub faults: u64,
    /// Time since the VMM started in which at least one of the VM's faults waited for a grant or
    /// for its swap space, or its processors were held ([`Facts::blocked`]). `some` of Linux's PSI.
    pub stall_some: Duration,
    /// Time in which the whole VM stood still for that reason: at least as many faults waited as it
    /// has processors (one, for a model), or these were held. `full` of Linux's PSI; part of
    /// `stall_some`.
    pub stall_full: Duration,
    /// Times that the guest rebooted.
    pub reboots: u32,
    /// Packets that each network interface has dropped since the VMM started because their source
    /// address was not the guest's.
    pub filtered: [u64; MAX_NETS],
    /// What the guest's balloon driver says of the guest; `None` where it said nothing yet.
    pub guest: Option<GuestFacts>,
    /// Where guest memory is mapped in the VMM: host address and length, for the daemon to look it
    /// up in the kernel's own account of the process. Longer than guest memory: what is sampled is
    /// behind it.
    pub ram: (u64, Bytes),
    /// What sampling shows.
    pub sampling: SamplingFacts,
}

/// Number of chunks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Chunks {
    /// No memory behind them.
    pub empty: u64,
    /// Served by the kernel, a huge page where it can.
    pub large: u64,
    /// Each page with a state of its own.
    pub small: u64,
}

/// Statistics of the guest's balloon driver. They may be lies: they may ask for memory (as a fault
/// does) but are never taken as proof of idleness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GuestFacts {
    /// Memory that the guest sees.
    pub total: Bytes,
    /// Memory that it uses for nothing.
    pub free: Bytes,
    /// Memory that it could use without swapping.
    pub available: Bytes,
    /// Page cache.
    pub cache: Bytes,
    /// Major faults since boot.
    pub major_faults: u64,
    /// Times that its OOM killer ran.
    pub oom_kills: u64,
    /// Pages in its balloon when it said so.
    #[serde(default)]
    pub ballooned: Pages,
    /// Memory that it read from its own swap space since boot. This and the following fields are
    /// `None` where its driver does not say.
    #[serde(default)]
    pub swap_in: Option<Bytes>,
    /// Memory that it wrote to its own swap space since boot.
    #[serde(default)]
    pub swap_out: Option<Bytes>,
    /// Allocations since boot that had to reclaim memory before they succeeded (Linux 6.10 and
    /// newer).
    #[serde(default)]
    pub alloc_stalls: Option<u64>,
    /// Memory that such allocations scanned.
    #[serde(default)]
    pub direct_scans: Option<Bytes>,
    /// Memory that they reclaimed.
    #[serde(default)]
    pub direct_reclaims: Option<Bytes>,
}

/// What sampling shows (Waldspurger 2002, section 5.3). Periods are counted in time that the VM
/// executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingFacts {
    /// How long the VM has executed: it waited neither for memory nor for a processor.
    pub executed: Duration,
    /// The number of the period under way, from 1; 0 before the first.
    pub period: u64,
    /// What it has shown so far.
    pub now: SampleFacts,
    /// What the one before has shown.
    pub last: SampleFacts,
}

/// What one period's samples show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleFacts {
    /// How long the VM has executed in it.
    pub elapsed: Duration,
    /// Samples of large chunks.
    pub chunks: Sampled,
    /// Samples of pages of small chunks.
    pub pages: Sampled,
    /// Samples of pages inside large chunks that were touched; the population is that of `chunks`.
    pub inside: Sampled,
    /// Pages that faults brought in.
    pub arrived: Pages,
}

/// Samples of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sampled {
    /// How many there were to choose from when the period began.
    pub population: u64,
    /// How many are watched.
    pub sampled: u64,
    /// How many of those were touched since.
    pub touched: u64,
}
