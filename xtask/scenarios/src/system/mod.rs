//! System tests: scenarios that run on a host with its own daemon and guests, in the lab or on
//! usable KVM.
//!
//! Each file is one scenario. A scenario opens a [`plimsoll_operate::Stage`], does what an operator
//! (or fate) would do, and fails with what was expected and what was found. [`SCENARIOS`] lists
//! them.

mod absent_driver;
mod bad_input;
mod boot;
mod boot_disk;
mod cgroup;
mod cloud_image;
mod disk;
mod explain;
mod fast_path;
mod greedy;
mod hostile_guest;
mod kill_daemon;
mod kill_vmm;
mod live_devices;
mod memory_taken;
mod overcommit;
mod paging_kills;
mod pci;
mod swap_failures;
mod tutorial;
mod vsock;

use anyhow::{Context, Result};
use plimsoll_lab::kernel::Version;

use crate::guests::Guests;

/// A host that scenarios run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its kernel.
    pub(crate) kernel: Version,
    /// Nested paging.
    pub(crate) npt: bool,
}

const fn host(kernel: Version, npt: bool) -> Host {
    Host { kernel, npt }
}

const NEW_NPT: Host = host(Version::V6_12, true);
const NEW_SHADOW: Host = host(Version::V6_12, false);
const OLD_NPT: Host = host(Version::V6_1, true);
const OLD_SHADOW: Host = host(Version::V6_1, false);

/// All hosts, in the order in which they are booted.
pub(crate) const HOSTS: [Host; 4] = [NEW_NPT, OLD_SHADOW, NEW_SHADOW, OLD_NPT];

/// What the lab has in its shared directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// The Debian disk, its kernel and its initrd.
    DebianDisk,
    /// Debian's cloud image.
    CloudImage,
}

/// A system test.
pub struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What must hold, in a line.
    pub(crate) about: &'static str,
    /// Hosts that it runs on unless all are asked for: enough that every host runs overcommitted
    /// guests, and that what depends on the kernel or on the paging meets both. None: model guests
    /// suffice.
    pub(crate) hosts: &'static [Host],
    /// What it wants in the shared directory.
    pub(crate) share: Option<Share>,
    /// Whether it takes more than four minutes: it then runs only where its name is given.
    pub(crate) slow: bool,
    /// Whether it makes sense with model guests, which need no KVM.
    pub(crate) model: bool,
    run: fn(Guests) -> Result<()>,
}

impl Scenario {
    /// Runs it on the host that this runs on.
    pub fn run(&self, guests: Guests) -> Result<()> {
        (self.run)(guests)
    }
}

/// All of them, in order of what they build on.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "boot",
        about: "both kernels boot with every device bound; shutdown, reboot and crash are told apart",
        hosts: &[NEW_NPT, OLD_SHADOW],
        share: None,
        slow: false,
        model: false,
        run: boot::run,
    },
    Scenario {
        name: "pci",
        about: "both kernels boot on PCI, with all disks and interfaces that there may be, and after a reboot",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: pci::run,
    },
    Scenario {
        name: "live-devices",
        about: "while a guest runs its disk grows, rates hold and are lifted, and its cable is unplugged",
        hosts: &[OLD_NPT],
        share: None,
        slow: false,
        model: false,
        run: live_devices::run,
    },
    Scenario {
        name: "vsock",
        about: "a thousand connections between host and guest, much data each way, and a program that does not read",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: vsock::run,
    },
    Scenario {
        name: "overcommit",
        about: "four guests need their whole memory in turn on a budget that holds them only together",
        hosts: &HOSTS,
        share: None,
        slow: false,
        model: true,
        run: overcommit::run,
    },
    Scenario {
        name: "greedy",
        about: "a guest that allocates without end stays within the budget and harms nobody else",
        hosts: &[NEW_NPT, OLD_SHADOW],
        share: None,
        slow: false,
        model: true,
        run: greedy::run,
    },
    Scenario {
        name: "absent-driver",
        about: "two guests without balloon drivers on half their memory: the busy one gets what it uses, and no page is lost",
        hosts: &[NEW_NPT, OLD_SHADOW],
        share: None,
        slow: false,
        model: false,
        run: absent_driver::run,
    },
    Scenario {
        name: "explain",
        about: "shares, reservations, limits and pools move memory at run time, and explain agrees with the ledger",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: true,
        run: explain::run,
    },
    Scenario {
        name: "kill-vmm",
        about: "a killed VMM costs its own VM only, and its memory is back within a second",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: true,
        run: kill_vmm::run,
    },
    Scenario {
        name: "kill-daemon",
        about: "a killed daemon costs nobody anything, and its successor's ledger adds up",
        hosts: &[NEW_NPT, OLD_SHADOW],
        share: None,
        slow: false,
        model: true,
        run: kill_daemon::run,
    },
    Scenario {
        name: "fast-path",
        about: "a VM entitled to memory gets it at once although another must give it first, and explain says why it waits",
        hosts: &[],
        share: None,
        slow: false,
        model: true,
        run: fast_path::run,
    },
    Scenario {
        name: "paging-kills",
        about: "daemon and VMM killed while VMs page: no page is lost, and memory and swap space are back",
        hosts: &[],
        share: None,
        slow: false,
        model: true,
        run: paging_kills::run,
    },
    Scenario {
        name: "memory-taken",
        about: "other programs take memory of the host's budget: guests give it and get it back, and none dies",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: memory_taken::run,
    },
    Scenario {
        name: "swap-failures",
        about: "swap space that cannot be written or read costs its own VM at most, which says why",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: swap_failures::run,
    },
    Scenario {
        name: "cgroup",
        about: "a VMM that allocates without end dies alone; one that forks or fills its log harms nobody",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: cgroup::run,
    },
    Scenario {
        name: "hostile-guest",
        about: "a guest that drives its devices against all rules costs its own VM at most",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: hostile_guest::run,
    },
    Scenario {
        name: "bad-input",
        about: "every wrong definition and command is refused in one line, and leaves nothing behind",
        hosts: &[NEW_NPT],
        share: None,
        slow: false,
        model: false,
        run: bad_input::run,
    },
    Scenario {
        name: "tutorial",
        about: "every command of the book's tutorial does what its text says",
        hosts: &[],
        share: None,
        slow: false,
        model: true,
        run: tutorial::run,
    },
    Scenario {
        name: "disk",
        about: "a Debian disk reaches its login prompt, every device bound by its stock driver",
        hosts: &[NEW_NPT],
        share: Some(Share::DebianDisk),
        slow: false,
        model: false,
        run: disk::run,
    },
    Scenario {
        name: "boot-disk",
        about: "a Debian disk boots by its own GRUB's configuration, and the entry that its guest chooses at a reboot",
        hosts: &[NEW_NPT],
        share: Some(Share::DebianDisk),
        slow: false,
        model: false,
        run: boot_disk::run,
    },
    Scenario {
        name: "cloud-image",
        about: "Debian's cloud image boots unmodified to its login, with what cloud-init was told",
        hosts: &[NEW_NPT],
        share: Some(Share::CloudImage),
        slow: true,
        model: false,
        run: cloud_image::run,
    },
];

/// The scenario called `name`.
pub fn find(name: &str) -> Result<&'static Scenario> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    found.with_context(|| format!("no scenario is called {name:?}: there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preflight_knows_the_scenarios_that_want_disks() {
        let names = |share| -> Vec<&str> {
            SCENARIOS.iter().filter(|s| s.share == Some(share)).map(|s| s.name).collect()
        };
        assert_eq!(names(Share::DebianDisk), preflight::DISK_SCENARIOS);
        assert_eq!(names(Share::CloudImage), preflight::CLOUD_SCENARIOS);
        // Preflight counts on it where no name is given.
        assert!(SCENARIOS.iter().all(|s| s.slow || s.share != Some(Share::CloudImage)));
    }
}
