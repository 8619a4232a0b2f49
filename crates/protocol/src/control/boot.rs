use plimsoll_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use super::sampling::SamplingConfig;
use crate::definition::{Balloon, Bus, Cpu, Disk, ImageFormat, JailPart, MacAddress, Net};
use crate::{Burst, LinkState, VmName};

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
    /// The kernel's command line; with [`GuestKind::Disk`], what is added to the disk's.
    pub cmdline: String,
    /// What runs.
    pub guest: GuestKind,
    /// Where its devices are.
    pub bus: Bus,
    /// Disks in the order of their device names.
    pub disks: Vec<DiskConfig>,
    /// Network interfaces in the order of their device names.
    pub nets: Vec<NetConfig>,
    /// Its sockets to the host, if it has any.
    pub vsock: Option<VsockConfig>,
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
    /// User and group to run as; `None` if the daemon cannot give one.
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
    /// A kernel, from what is on the first disk.
    Disk,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// The guest may not write it.
    pub read_only: bool,
    /// What the guest sees as its serial number; cut after 20 bytes.
    pub serial: String,
    /// What it is.
    pub format: ImageFormat,
    /// Its backing files: each is that of the one before it, the first one that of the disk.
    pub backing: Vec<ImageFormat>,
    /// Most bytes that its file may have.
    pub longest: Bytes,
    /// How fast it may be.
    pub rate: RateLimit,
}

/// How fast a device may be; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests of a disk, or packets of an interface in each direction, a second.
    pub operations: Option<u64>,
    /// Bytes a second, of an interface in each direction.
    pub bandwidth: Option<Bytes>,
    /// What may be done at once after a rest, as time at that rate.
    pub burst: Burst,
}

impl From<&Disk> for RateLimit {
    fn from(disk: &Disk) -> Self {
        let burst = disk.burst.unwrap_or_default();
        Self { operations: disk.iops, bandwidth: disk.bandwidth, burst }
    }
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// The guest's address.
    pub mac: MacAddress,
    /// What may change while it runs.
    pub settings: NetSettings,
}

/// What may change of a network interface while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetSettings {
    /// How fast it may be.
    pub rate: RateLimit,
    /// Whether its cable is plugged in.
    pub link: LinkState,
    /// Packets of the guest with another source address than its own are dropped and counted.
    pub mac_filter: bool,
}

impl From<&Net> for NetSettings {
    fn from(net: &Net) -> Self {
        let burst = net.burst.unwrap_or_default();
        let rate = RateLimit { operations: net.packets, bandwidth: net.bandwidth, burst };
        Self { rate, link: net.link, mac_filter: net.mac_filter }
    }
}

/// The device for sockets between guest and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockConfig {
    /// The guest's context identifier.
    pub cid: u32,
    /// Most connections at a time, 1 to
    /// [`MAX_CONNECTIONS`](crate::definition::MAX_CONNECTIONS).
    pub connections: u16,
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
    /// The next of the backing files of the disk with this index, open for reading. They follow
    /// their disk.
    Backing(u8),
    /// A tap device, by index of its interface.
    Tap(u8),
    /// The file that is the VM's swap space, open for reading and writing, past the page cache
    /// where the file system can.
    Swap,
    /// The file that takes the console's output, open for reading and writing.
    ConsoleLog,
    /// A listening stream socket: each client that connects is attached to the console.
    ConsoleListener,
    /// A listening stream socket: each client that connects may name a port of the guest.
    VsockListener,
}
