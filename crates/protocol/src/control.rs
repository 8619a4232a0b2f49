//! The messages between the daemon and one VMM.
//!
//! The daemon starts a VMM with a listening socket as file descriptor [`CONTROL_FD`] and connects
//! to it. At every connection the VMM speaks first: [`FromVmm::Hello`]. Then the daemon sends
//! [`ToVmm::Boot`], once in the VMM's life, with the file descriptors that its roles name. A daemon
//! that has been restarted connects to the same socket, reads the `Hello`, and rebuilds its ledger
//! from it.
//!
//! Grants move as differences, each applied exactly once: [`ToVmm::Grant`] counts from the moment
//! it is sent (the ledger is charged first), [`FromVmm::Return`] from the moment it is read (the
//! VMM lowered its grant before it wrote). When a connection ends the VMM reads what is left in it
//! before it says `Hello` on the next one, so no grant is lost; the totals in `Hello` make up for
//! returns that nobody read.

use std::fmt;
use std::time::Duration;

use plimsoll_units::{Bytes, FrameNo, PageNo, Pages};
use serde::{Deserialize, Serialize};

use crate::VmName;
use crate::definition::{Balloon, Cpu, JailPart, MacAddress};
use crate::sharing::{DomainId, Found, ScanBudget, SharingKind};

/// Version of these messages. Daemon and VMM of different versions do not talk: the daemon says so
/// in the VM's status.
pub const VERSION: u32 = 7;
/// The file descriptor at which a VMM finds its listening control socket.
pub const CONTROL_FD: i32 = 3;
/// How often a VMM reports its [`Facts`] unasked.
pub const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// From the daemon to a VMM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToVmm {
    /// Become this VM. Comes once, with one file descriptor per entry of [`BootConfig::fds`].
    Boot(Box<BootConfig>),
    /// Your grant grows by this much.
    Grant(Pages),
    /// The balloon's size to steer to.
    BalloonTarget(Pages),
    /// Compress and swap out until what the VM holds, and what its faults wait for beyond its
    /// grant, come to at most `level`. So a level below the grant takes memory back, and a level at
    /// the grant has the VM serve its own faults from its own memory. Replaces what was said
    /// before, and stays in force; each later [`ToVmm::Grant`] raises it by as much.
    Paging {
        /// The level; `None`: nothing is paged out.
        level: Option<Pages>,
        /// The VM's processors stand still while more than that is held, unless nothing more can be
        /// paged out.
        block: bool,
    },
    /// With whom the VM shares pages, and how much it looks for them. Comes after `Boot` and
    /// whenever the domain changes; without, nothing is shared. With [`SharingKind::Frames`] come
    /// two descriptors: the domain's frames, for reading, and the VM's window of [`WINDOW`] pages,
    /// for writing.
    ///
    /// [`WINDOW`]: crate::sharing::WINDOW
    Sharing {
        /// With whom.
        domain: SharingKind,
        /// How much.
        scan: ScanBudget,
    },
    /// How much the VM looks for pages that can be shared, from now on.
    Budget(ScanBudget),
    /// The answer to [`FromVmm::LookUp`]: one entry for each of its pages, in their order.
    Found {
        /// That of the question.
        id: u32,
        /// What is known of each page.
        found: Vec<Found>,
    },
    /// The answer to [`FromVmm::Offer`]. What was not taken comes back by a [`ToVmm::Grant`].
    Offered {
        /// That of the offer.
        id: u32,
        /// The frame that now has each page's content; a reference to it is held for that page.
        /// `None`: it was not taken.
        frames: Vec<Option<FrameNo>>,
    },
    /// Other VMs have offered what these pages are said to hold: each has a reference to that frame
    /// from now on, and is to be compared with it. At most [`MAX_BATCH`] pages.
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    Share {
        /// Whose frames they are.
        domain: DomainId,
        /// The pages and their frames.
        pages: Vec<(PageNo, FrameNo)>,
    },
    /// Press the guest's power button.
    PowerButton,
    /// Answer with [`FromVmm::Report`] at once.
    Query,
}

/// From a VMM to the daemon. The daemon takes every number as a claim: it bounds it by what it
/// knows (the VM's size, the grants that it gave).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromVmm {
    /// The first message of every connection.
    Hello {
        /// The VMM's [`VERSION`].
        version: u32,
        /// Its facts; zeros before `Boot`.
        facts: Facts,
    },
    /// The guest is set up and runs; missing parts of the jail are those it runs without.
    Running {
        /// Parts of the jail that are not in force.
        missing_jail: Vec<JailPart>,
    },
    /// Pages that faults wait for beyond the grant: a total, zero when none is left. The answer is
    /// [`ToVmm::Grant`], with as much as the daemon has to give, perhaps later.
    Want(Pages),
    /// The VMM lowered its own grant by this much.
    Return(Pages),
    /// The facts as they are now; sent every [`REPORT_PERIOD`] and when asked.
    Report(Facts),
    /// The guest rebooted: all its memory is given back and it starts anew.
    Rebooted,
    /// What is known of pages with these hashes (64 bits of xxh3)? At most [`MAX_BATCH`] pages, at
    /// most one question or offer at a time; the answer is [`ToVmm::Found`].
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    LookUp {
        /// The domain whose frames are meant.
        domain: DomainId,
        /// Comes back with the answer.
        id: u32,
        /// The pages and their hashes.
        pages: Vec<(PageNo, u64)>,
    },
    /// The window begins with the content of these pages, in their order: to be made frames. At
    /// most [`WINDOW`] pages. The VMM has lowered its own grant by as many; the answer is
    /// [`ToVmm::Offered`].
    ///
    /// [`WINDOW`]: crate::sharing::WINDOW
    Offer {
        /// The domain that they are for.
        domain: DomainId,
        /// Comes back with the answer.
        id: u32,
        /// The pages and their hashes.
        pages: Vec<(PageNo, u64)>,
    },
    /// These pages need their frames no more. At most [`MAX_BATCH`] pages.
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    GiveBack {
        /// Whose frames they are.
        domain: DomainId,
        /// The pages and their frames.
        pages: Vec<(PageNo, FrameNo)>,
        /// They never were shared: what the frames hold is something else.
        mismatched: bool,
    },
    /// To a daemon that has been restarted, right after `Hello`, from a VMM that holds frames: here
    /// is the descriptor by which it reads them. What it holds follows in [`FromVmm::Holds`].
    Pool(DomainId),
    /// The pages that hold frames. At most [`MAX_BATCH`] at a time.
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    Holds {
        /// The pages and their frames.
        pages: Vec<(PageNo, FrameNo)>,
        /// These were the last.
        last: bool,
    },
    /// Something that the operator should know and that stops nothing. At most [`MAX_NOTICE`]
    /// bytes.
    Notice(String),
    /// The VMM ends now, and why.
    Exit(ExitReason),
}

/// Longest [`FromVmm::Notice`] and [`ExitReason::Failed`] text; the receiver cuts what is longer.
pub const MAX_NOTICE: usize = 1024;

/// What a VMM says of itself.
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
    /// The VM's processors stand still: see [`ToVmm::Paging`].
    pub blocked: bool,
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
    /// What the guest's balloon driver says of the guest; `None` where it said nothing yet.
    pub guest: Option<GuestFacts>,
    /// Where guest memory is mapped in the VMM: host address and length, for the daemon to look it
    /// up in the kernel's own account of the process. Longer than guest memory: what is sampled is
    /// behind it.
    pub ram: (u64, Bytes),
    /// What sampling shows.
    pub sampling: SamplingFacts,
}

/// What sampling shows (Waldspurger 2002, section 5.3). Periods are counted in time that the VM
/// executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingFacts {
    /// How long the VM has executed: it waited neither for memory nor for a processor.
    pub executed: Duration,
    /// The number of the period under way; the first is 1, and 0 is none.
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
pub struct Sampled {
    /// How many there were to choose from when the period began.
    pub population: u64,
    /// How many are watched.
    pub sampled: u64,
    /// How many of those were touched since.
    pub touched: u64,
}

/// How a VM's memory is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingConfig {
    /// Samples a period: 1 to [`MAX_SAMPLES`].
    pub samples: u32,
    /// How long the VM runs in a period: [`SHORTEST_SAMPLE_PERIOD`] to [`LONGEST_SAMPLE_PERIOD`].
    pub period: Duration,
}

/// Most samples a period.
pub const MAX_SAMPLES: u32 = 1000;
/// Shortest period of sampling. Shorter, and reports would miss periods.
pub const SHORTEST_SAMPLE_PERIOD: Duration = REPORT_PERIOD;
/// Longest period of sampling. Longer, and an idle VM would seem busy for half a day.
pub const LONGEST_SAMPLE_PERIOD: Duration = Duration::from_secs(3600);

/// Number of chunks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Everything a VMM needs to become a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootConfig {
    /// The VM's name, for logs.
    pub name: VmName,
    /// Guest-physical memory: a multiple of 2 MiB.
    pub size: Pages,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// What they offer.
    pub cpu: Cpu,
    /// The kernel's command line.
    pub cmdline: String,
    /// What runs.
    pub guest: GuestKind,
    /// Disks in the order of their device names.
    pub disks: Vec<DiskConfig>,
    /// Network interfaces in the order of their device names.
    pub nets: Vec<NetConfig>,
    /// What the balloon device offers.
    pub balloon: Balloon,
    /// Grant to begin with; already charged in the ledger.
    pub grant: Pages,
    /// Huge pages are used where chunks are large.
    pub huge_pages: bool,
    /// How its memory is sampled.
    pub sampling: SamplingConfig,
    /// Most machine memory that compressed pages may take; zero: nothing is compressed.
    pub store: Pages,
    /// Swap space, behind the descriptor of [`FdRole::Swap`]; `None`: nothing is swapped out.
    pub swap: Option<SwapConfig>,
    /// User and group to run as; `None` where the daemon cannot give one.
    pub uid: Option<u32>,
    /// Parts of the jail that may be missing.
    pub allow_missing: Vec<JailPart>,
    /// The role of each file descriptor that came with the message, in order.
    pub fds: Vec<FdRole>,
}

/// What runs in a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestKind {
    /// A kernel, from the file descriptors.
    Kernel,
    /// A host thread: see [`crate::definition::Boot::model`].
    Model,
}

/// The VM's swap space: a file without a name, whose space is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapConfig {
    /// Pages that it takes: the VM's size less its reservation.
    pub slots: Pages,
    /// What is written is encrypted, with a key that only the VMM has.
    pub encrypt: bool,
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// The guest may not write it.
    pub read_only: bool,
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// The guest's address.
    pub mac: MacAddress,
}

/// What a passed file descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FdRole {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/userfaultfd`.
    Userfaultfd,
    /// The kernel, open for reading.
    Kernel,
    /// The initial ram disk, open for reading.
    Initrd,
    /// A disk, by index.
    Disk(u8),
    /// A tap device, by index of its interface.
    Tap(u8),
    /// The file that is the VM's swap space, open for reading and writing, past the page cache
    /// where the file system can.
    Swap,
    /// The file that takes the console's output, open for reading and writing.
    ConsoleLog,
    /// A listening stream socket: who connects is attached to the console.
    ConsoleListener,
}

/// Why a VMM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest switched itself off.
    Shutdown,
    /// The guest crashed (it reported a panic, or triple-faulted).
    Crashed(String),
    /// The VMM could not go on: what failed, in one line.
    Failed(String),
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the guest shut down"),
            Self::Crashed(how) => write!(f, "the guest crashed: {how}"),
            Self::Failed(what) => write!(f, "the VMM failed: {what}"),
        }
    }
}
