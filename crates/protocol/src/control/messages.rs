use plimsoll_units::{Bytes, FrameNo, PageDigest, PageNo, Pages};
use serde::{Deserialize, Serialize};

use super::boot::BootConfig;
use super::device::DeviceOrder;
use super::exit::ExitReason;
use super::facts::Facts;
use crate::definition::JailPart;
use crate::sharing::{DomainId, Found, ScanBudget, SharingKind};

/// Version of these messages. Daemon and VMM of different versions do not talk: the daemon says so
/// in the VM's status.
pub const VERSION: u32 = 11;
/// The file descriptor at which a VMM finds its listening control socket.
pub const CONTROL_FD: i32 = 3;

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
    /// The domain that the VM shares pages in, and how much it scans for them. Comes after `Boot`
    /// and whenever the domain changes; without it, nothing is shared. With
    /// [`SharingKind::Frames`] come two descriptors: the domain's frames, for reading, and the VM's
    /// window of [`WINDOW`] pages, for writing.
    ///
    /// [`WINDOW`]: crate::sharing::WINDOW
    Sharing {
        /// The domain.
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
    /// The VM's processors stand still (`true`) until they are told to go on (`false`). Its devices
    /// and its memory go on.
    Pause(bool),
    /// Reset the machine, as its reset button would: the guest starts anew.
    Reset,
    /// The answer to [`FromVmm::Dial`]. With `connected` comes one descriptor: a connected stream
    /// socket. An answer may be lost, as the question may.
    Dialed {
        /// That of the question.
        id: u64,
        /// The host has taken the connection.
        connected: bool,
    },
    /// A device changes. A model guest, which has none, ignores it.
    Device(DeviceOrder),
    /// Answer with [`FromVmm::Report`] at once.
    Query,
}

/// From a VMM to the daemon. The daemon takes every number as a claim, and bounds it by the VM's
/// size and the grants that it gave.
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
    ///
    /// [`REPORT_PERIOD`]: super::REPORT_PERIOD
    Report(Facts),
    /// The guest rebooted: all its memory is given back and it starts anew.
    Rebooted,
    /// What is known of pages with these digests, made with the domain's key? At most [`MAX_BATCH`]
    /// pages, at most one question or offer at a time; the answer is [`ToVmm::Found`].
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    LookUp {
        /// The domain whose frames are meant.
        domain: DomainId,
        /// Comes back with the answer.
        id: u32,
        /// The pages and their digests.
        pages: Vec<(PageNo, PageDigest)>,
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
        /// The pages and their digests.
        pages: Vec<(PageNo, PageDigest)>,
    },
    /// These pages need their frames no more. At most [`MAX_BATCH`] pages.
    ///
    /// [`MAX_BATCH`]: crate::sharing::MAX_BATCH
    GiveBack {
        /// Whose frames they are.
        domain: DomainId,
        /// The pages and their frames.
        pages: Vec<(PageNo, FrameNo)>,
        /// They were never shared: the frames hold other content.
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
    /// The guest connects to this port of the host: connect to the unix socket that stands for it.
    /// The answer is [`ToVmm::Dialed`].
    Dial {
        /// Comes back with the answer.
        id: u64,
        /// Any port.
        port: u32,
    },
    /// The answer to [`DeviceOrder::DiskSize`].
    Resized {
        /// The disk's place.
        disk: u8,
        /// Bytes that its guest has been told of, or why the disk is as it was: at most
        /// [`MAX_NOTICE`] bytes.
        outcome: Result<Bytes, String>,
    },
    /// A remark for the operator; the VM goes on. At most [`MAX_NOTICE`] bytes.
    Notice(String),
    /// The VMM ends now, for this reason.
    Exit(ExitReason),
}

/// Longest [`FromVmm::Notice`] and [`ExitReason::Failed`] text; the receiver cuts what is longer.
pub const MAX_NOTICE: usize = 1024;
