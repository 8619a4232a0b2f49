//! A control group (version 2) for each VM, within which the kernel holds its VMM to its grant.
//!
//! ```text
//! BASE            delegated to the daemon: the group that it was started in, or /plimsoll
//! BASE/daemon     the daemon, which leaves BASE: a group with limits below it holds no processes
//! BASE/vm-NAME.PID one VMM, with limits on memory, processes and processor time
//! ```
//!
//! Groups outlive the daemon as VMs do; the next daemon finds them by name and process. (Two
//! daemons may be in one group, and have VMs of one name.) Where the controllers cannot be had, VMs
//! get groups without limits ([`Cgroups::unlimited`] says why), and the daemon ends a VM that lasts
//! in holding more than it may.
//!
//! BASE may be a group elsewhere (`--vm-cgroup`); the daemon then stays where it is. The systemd
//! units do that. A restarted service gets its process into its own group, which the kernel refuses
//! while groups with limits are below it; only systemd 254 and newer can start it in the leaf.

mod bound;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use plimsoll_machine::limit;
use plimsoll_machine::oom::OomKills;
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::{Bytes, Pages};

pub(crate) use self::bound::MemoryBound;

/// The daemon's own group below the base. A service manager may start it there (systemd's
/// `DelegateSubgroup=daemon`).
const LEAF: &str = "daemon";
/// The controllers of VMs' groups.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Most threads of a VMM. One of 8 processors and all devices has some 60, and io_uring may add as
/// many for requests that wait; more serve no VM, and could use up the host's.
const MOST_THREADS: u32 = 256;
const NOT_MOUNTED: &str = "cgroup v2 is not mounted";
/// Weight of processor time of each virtual processor: the kernel's default for a group.
const WEIGHT_OF_VCPU: u32 = 100;
/// Weight of the daemon: as much as ten processors of VMs, so that memory keeps moving on a host
/// whose processors are all busy.
const WEIGHT_OF_DAEMON: u32 = 1000;

/// Where the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// In the base, or in its leaf below it.
    InBase,
    Elsewhere,
}

/// The group under which VMs get theirs.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    base: PathBuf,
    limits: Result<(), String>,
    /// Groups whose VMMs are gone and that could not be removed yet.
    leftover: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Cgroups {
    /// Switches limits on below the group `named`, or else finds the daemon's group and moves the
    /// daemon to its leaf for that.
    ///
    /// # Errors
    /// In one line why no groups can be made: no cgroup v2, no right to, or no group `named`.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let pid = std::process::id();
        match named {
            Some(named) => Self::below(elsewhere(&mounts, named)?, pid, Daemon::Elsewhere),
            None => Self::below(base(&mounts, &own).ok_or(NOT_MOUNTED)?, pid, Daemon::InBase),
        }
    }

    /// Uses `base`, for a daemon that is process `pid`.
    fn below(base: PathBuf, pid: u32, daemon: Daemon) -> Result<Self, String> {
        // Another daemon may be trying the same.
        let probe = base.join(format!("plimsoll-probe.{pid}"));
        make(&base)
            .and_then(|()| make(&probe))
            .and_then(|()| std::fs::remove_dir(&probe))
            .map_err(|e| format!("no control groups can be made in {}: {e}", base.display()))?;
        let limits = switch_on(&base, pid, daemon);
        Ok(Self { base, limits, leftover: Arc::default() })
    }

    /// Why the kernel does not hold VMMs to their grants; `None`: it does.
    pub(crate) fn unlimited(&self) -> Option<&str> {
        self.limits.as_ref().err().map(String::as_str)
    }

    /// Makes the group of a VM with `grant` and puts its VMM there. Returns what holds it to its
    /// grant, where there are limits.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn put(
        &self,
        definition: &VmDefinition,
        pid: u32,
        grant: Pages,
    ) -> io::Result<Option<MemoryBound>> {
        let path = self.of(&definition.name, pid);
        let place = || {
            make(&path).map_err(|e| at(&path, &e))?;
            let bound = self.limits.is_ok().then(|| limit(&path, definition, grant)).transpose()?;
            write(&path.join("cgroup.procs"), &pid.to_string())?;
            Ok(bound)
        };
        // Another daemon may have swept it away before the process was in it. A write to a file of
        // a group that is gone fails with ENODEV.
        let gone = |e: &io::Error| {
            e.kind() == io::ErrorKind::NotFound
                || e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
        };
        place().or_else(|e: io::Error| if gone(&e) { place() } else { Err(e) })
    }

    /// Removes the group of a VM whose VMM was process `pid` and is gone, and ends whatever else is
    /// there.
    pub(crate) fn remove(&self, vm: &VmName, pid: u32) {
        let path = self.of(vm, pid);
        kill(&path);
        // Processes that were just ended may still be there.
        if std::fs::remove_dir(&path).is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
            self.leftover().insert(path);
        }
    }

    /// Removes groups that could not be removed before.
    pub(crate) fn tidy(&self) {
        self.leftover()
            .retain(|path| std::fs::remove_dir(path).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy));
    }

    /// Removes groups that earlier daemons have left and that no process is in.
    pub(crate) fn sweep(&self) {
        for entry in std::fs::read_dir(&self.base).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // The kernel removes no group that a process is in.
                std::fs::remove_dir(entry.path()).ok();
            }
        }
    }

    fn leftover(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        // Nothing panics between two changes that belong together.
        plimsoll_sys::lock(&self.leftover)
    }

    /// Whether the kernel has ended the VMM of process `pid`, whose group is still there, because
    /// it used more than the group may.
    pub(crate) fn oom_killed(&self, vm: &VmName, pid: u32) -> bool {
        OomKills::of_group(&self.of(vm, pid)).reached_bound()
    }

    /// The count of all OOM kills of VMs and of the daemon, where there are limits.
    pub(crate) fn oom_kills(&self) -> Option<OomKills> {
        let kills = OomKills::of_group(&self.base);
        kills.count().map(|_| kills)
    }

    fn of(&self, vm: &VmName, pid: u32) -> PathBuf {
        self.base.join(name(vm, pid))
    }
}

/// Names of VMs' groups begin with this.
const PREFIX: &str = "vm-";

fn name(vm: &VmName, pid: u32) -> String {
    format!("{PREFIX}{vm}.{pid}")
}

/// What holds the VMM of `pid`, which an earlier daemon started, to its grant. `None`: nothing
/// does.
///
/// The group may be one that this daemon would not make: below another base, or where it could set
/// no limits. A bound that stays while the grant grows would end the VM, so a bound that cannot be
/// managed is lifted.
///
/// Without `beside`, which the earlier daemon has noted (see [`MemoryBound::beside`]), this may
/// wait for file systems of the VM's disks.
pub(crate) fn adopt(definition: &VmDefinition, pid: u32, beside: Option<Bytes>) -> Option<MemoryBound> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    adopt_by(&mounts, &own, definition, pid, beside)
}

fn adopt_by(
    mounts: &str,
    own: &str,
    definition: &VmDefinition,
    pid: u32,
    beside: Option<Bytes>,
) -> Option<MemoryBound> {
    let path = limit::unified(mounts, own).into_iter().next();
    let path = path.filter(|path| path.ends_with(name(&definition.name, pid)))?;
    let max = path.join("memory.max");
    if !max.exists() {
        return None; // A group without limits.
    }
    let lift = |e: io::Error| {
        let lifted = write(&max, "max").map_or_else(|e| format!("stays: {e}"), |()| "is lifted".to_owned());
        tracing::warn!(vm = %definition.name, "the bound of its memory cannot be managed and {lifted}: {e}");
    };
    MemoryBound::adopt(path, definition, beside).map_err(lift).ok()
}

/// Moves the daemon out of `base`, if it is there, and has the kernel limit the groups below it.
fn switch_on(base: &Path, pid: u32, daemon: Daemon) -> Result<(), String> {
    let shown = base.display();
    let there = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let there: Vec<&str> = there.split_ascii_whitespace().collect();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|c| !there.contains(c)).collect();
    if !missing.is_empty() {
        return Err(format!(
            "{shown} lacks the controllers {}: delegate them (Delegate=yes of a systemd unit), or switch them on in \
             cgroup.subtree_control of the group above",
            missing.join(", ")
        ));
    }
    let leaf = base.join(LEAF);
    if daemon == Daemon::InBase {
        make(&leaf)
            .and_then(|()| write(&leaf.join("cgroup.procs"), &pid.to_string()))
            .map_err(|e| format!("plimsolld cannot move to a group of its own: {e}"))?;
    }
    let all = CONTROLLERS.map(|c| format!("+{c}")).join(" ");
    write(&base.join("cgroup.subtree_control"), &all).map_err(|e| {
        let busy = e.kind() == io::ErrorKind::ResourceBusy;
        let todo =
            "other processes are in that group: start plimsolld in one of its own, such as a systemd unit";
        format!("no limits can be set in {shown}: {}", if busy { todo.to_owned() } else { e.to_string() })
    })?;
    if daemon == Daemon::Elsewhere {
        return Ok(()); // Its weight is that of its own group.
    }
    write(&leaf.join("cpu.weight"), &WEIGHT_OF_DAEMON.to_string())
        .map_err(|e| format!("plimsolld gets no processor time before others: {e}"))
}

/// Sets all limits of a group without processes.
fn limit(path: &Path, definition: &VmDefinition, grant: Pages) -> io::Result<MemoryBound> {
    let bound = MemoryBound::new(path.to_owned(), definition, grant)?;
    // A part of a VMM is of no use.
    write(&path.join("memory.oom.group"), "1")?;
    // The ledger counts memory and not the host's swap space, which guests' memory must not reach.
    let swap = path.join("memory.swap.max");
    if let Err(e) = write(&swap, "0")
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e); // A kernel without swapping has no such file.
    }
    write(&path.join("pids.max"), &MOST_THREADS.to_string())?;
    let weight = u32::from(definition.vcpus).saturating_mul(WEIGHT_OF_VCPU);
    write(&path.join("cpu.weight"), &weight.to_string())?;
    Ok(bound)
}

/// Ends all processes of a group. There may be neither processes nor a group.
fn kill(path: &Path) {
    let file = path.join("cgroup.kill");
    if file.exists() {
        std::fs::write(&file, "1").ok();
    }
}

/// Writes to a file of a group. The kernel makes those; in a test, they are made here.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let (mut options, test) = (OpenOptions::new(), cfg!(test));
    let file = options.write(true).create(test).truncate(test).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| at(path, &e))
}

fn at(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// The directory of the group `named`, which must be there.
fn elsewhere(mounts: &str, named: &Path) -> Result<PathBuf, String> {
    let root = limit::unified(mounts, "0::/").into_iter().next().ok_or(NOT_MOUNTED)?;
    let path = root.join(named.strip_prefix("/").unwrap_or(named));
    if !path.is_dir() {
        return Err(format!("there is no control group {}: start the unit that makes it", path.display()));
    }
    Ok(path)
}

/// Where VMs' groups go: below the daemon's own, or beside it where it is in its leaf already.
/// Below the root group, a group of our own comes between.
fn base(mounts: &str, own: &str) -> Option<PathBuf> {
    let mut groups = limit::unified(mounts, own).into_iter();
    let own = groups.next()?;
    let base = if own.ends_with(LEAF) { groups.next()? } else { own };
    Some(if groups.len() == 0 { base.join("plimsoll") } else { base })
}

#[cfg(test)]
mod tests;
