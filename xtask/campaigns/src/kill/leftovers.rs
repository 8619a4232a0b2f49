//! What an attack may have left over, and accounts that may no longer agree: Plimsoll's word beside
//! what the kernel shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plimsoll_operate::standstill::Standstill;
use plimsoll_operate::{agreement, process, watch};
use plimsoll_protocol::definition::JailPart;
use plimsoll_protocol::status::{HostStatus, Power, VmStatus};
use plimsoll_units::{Bytes, Pages};

use super::field::Field;
use super::population::Population;
use super::until_fine::until_fine;

/// Descriptors, threads and mappings that a process may have more than when it was first looked
/// at: connections that just end, heaps of the allocator, domains that it has joined since. What
/// leaks at each point exceeds it.
const MORE_DESCRIPTORS: usize = 8;
const MORE_THREADS: usize = 4;

/// What the kernel may show of a VM beyond what the daemon knows: guests rest, so only pages that
/// are being moved.
const SLACK: Bytes = Bytes::mib(1);

/// How long VMMs stand still at a time. The daemon calls them silent after 5 s.
const STILL: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// How long it may take until nothing is left of VMs that are off.
pub(super) const GONE: Duration = Duration::from_secs(30);

/// Looks for leftovers.
pub(super) struct Leftovers {
    /// The free swap space without any VM; `None` where others use the same file system.
    swap: Option<Bytes>,
    /// The files that belong there.
    files: BTreeSet<PathBuf>,
    /// What each process had when it was first looked at.
    footprints: BTreeMap<u32, Footprint>,
}

#[derive(Clone, Copy, Debug)]
struct Footprint {
    descriptors: usize,
    threads: usize,
}

impl Leftovers {
    /// Takes note of how things are without VMs.
    pub(super) fn new(field: &Field) -> Result<Self> {
        Ok(Self { swap: field.swap.free()?, files: BTreeSet::new(), footprints: BTreeMap::new() })
    }

    /// Takes the files of VMs at work as those that belong there.
    pub(super) fn learn_files(&mut self, field: &Field) -> Result<()> {
        self.files = files(field)?;
        Ok(())
    }

    /// The first difference or leftover, if any. Guests should rest.
    pub(super) fn find(&mut self, field: &Field, population: &Population) -> Result<Option<String>> {
        let stage = &field.stage;
        let (host, vms) = (stage.host()?, stage.vms()?);
        let daemon = stage.daemon_pid()?;
        let found = settings(population, &vms)
            .or(without_swap(&vms))
            .or(processes(daemon, population, &vms)?)
            .or(other_groups(population, &vms)?)
            .or(self.other_files(field)?)
            .or(self.swap_space(field, &host, &vms)?)
            .or(self.grown(daemon, &vms)?);
        if found.is_some() {
            return Ok(found);
        }
        // VMMs look for pages to share all the time. While they stand still nothing moves, and the
        // daemon soon knows all.
        let _still = vms.iter().filter_map(|vm| Some(Standstill::of(vm.pid?))).collect::<Result<Vec<_>>>()?;
        let deadline = Instant::now() + STILL;
        loop {
            let (host, vms) = (stage.host()?, stage.vms()?);
            let found = match agreement::difference(stage, SLACK)? {
                None => over_budget(field, &host, &vms)?.or(frames(daemon, &host, &vms)?),
                difference => difference,
            };
            if found.is_none() || Instant::now() > deadline {
                return Ok(found);
            }
            thread::sleep(TICK);
        }
    }

    /// Fails unless everything is as it was without VMs, which are all off.
    pub(super) fn nothing(&self, field: &Field, population: &Population) -> Result<()> {
        let stage = &field.stage;
        stage.wait_free()?;
        until_fine(GONE, || {
            let (host, vms) = (stage.host()?, stage.vms()?);
            let daemon = stage.daemon_pid()?;
            Ok(processes(daemon, population, &vms)?
                .or(other_groups(population, &vms)?)
                .or(frames(daemon, &host, &vms)?)
                .or(self.swap_space(field, &host, &vms)?)
                .or(runs(field)?))
        })
    }

    fn other_files(&self, field: &Field) -> Result<Option<String>> {
        let found = files(field)?;
        Ok((found != self.files).then(|| {
            let (more, less): (Vec<_>, Vec<_>) =
                (found.difference(&self.files).collect(), self.files.difference(&found).collect());
            format!("files: {more:?} are left over, {less:?} are missing")
        }))
    }

    fn swap_space(&self, field: &Field, host: &HostStatus, vms: &[VmStatus]) -> Result<Option<String>> {
        // What was set aside when a VM started stays, whatever is reserved for it later.
        let on = || vms.iter().filter(|vm| vm.power != Power::Off);
        let promised: Bytes = on().map(|vm| vm.size.saturating_sub(vm.reservation)).sum();
        if promised != host.swap_reserved {
            let reserved = host.swap_reserved;
            return Ok(Some(format!("swap space of {reserved} is promised, and should be {promised}")));
        }
        let space: Bytes = on().map(|vm| vm.paging.space).sum();
        let (Some(all), Some(free)) = (self.swap, field.swap.free()?) else { return Ok(None) };
        let used = all.saturating_sub(free);
        Ok((used != space).then(|| format!("swap files take {used}, VMs have swap space of {space}")))
    }

    fn grown(&mut self, daemon: u32, vms: &[VmStatus]) -> Result<Option<String>> {
        let pids: BTreeSet<u32> = vms.iter().filter_map(|vm| vm.pid).chain([daemon]).collect();
        self.footprints.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let now = Footprint { descriptors: process::descriptors(pid)?, threads: process::threads(pid)? };
            let first = *self.footprints.entry(pid).or_insert(now);
            if now.descriptors > first.descriptors + MORE_DESCRIPTORS
                || now.threads > first.threads + MORE_THREADS
            {
                return Ok(Some(format!("process {pid} had {first:?} and has {now:?}")));
            }
        }
        Ok(None)
    }
}

/// What is left of the VM `name`, which is off: memory in the ledger, a process, a control group, a
/// run directory.
pub(super) fn of_dead(field: &Field, name: &str) -> Result<Option<String>> {
    let vm = field.stage.vm(name)?;
    let charged = vm.grant + vm.overhead + vm.paging.space;
    if vm.pid.is_some() || charged > Bytes::ZERO {
        return Ok(Some(format!("{name} is off, with process {:?} and {charged}", vm.pid)));
    }
    let title = format!("plimsoll-vmm {name}");
    if let Some(process) = process::all()?.into_iter().find(|process| process.title == title) {
        return Ok(Some(format!("{name} is off, and process {} is left over", process.pid)));
    }
    if let Some(group) = groups(&format!("vm-{name}."))?.first() {
        return Ok(Some(format!("{name} is off, and control group {group} is left over")));
    }
    let run = field.stage.path().join("run/vms").join(name);
    Ok(run.exists().then(|| format!("{name} is off, and {} is left over", run.display())))
}

fn over_budget(field: &Field, host: &HostStatus, vms: &[VmStatus]) -> Result<Option<String>> {
    if host.budget != field.budget {
        return Ok(Some(format!("the budget was {} and is {}", field.budget, host.budget)));
    }
    let accounted = watch::accounted(host, vms)?;
    Ok((accounted > host.budget)
        .then(|| format!("the kernel accounts {accounted} to guests, the budget is {}", host.budget)))
}

/// A VM that does not swap any more. Those whose swap space was broken have been replaced.
fn without_swap(vms: &[VmStatus]) -> Option<String> {
    let vm = vms.iter().find(|vm| vm.paging.failed)?;
    Some(format!("{}: its swap space has failed", vm.name))
}

fn settings(population: &Population, vms: &[VmStatus]) -> Option<String> {
    population.vms.iter().find_map(|vm| {
        let now = vms.iter().find(|now| now.name.as_str() == vm.name)?;
        vm.settings.differ(now).map(|what| format!("{}: {what}", vm.name))
    })
}

/// Processes of VMs of this campaign, and dead ones of the daemon's.
fn processes(daemon: u32, population: &Population, vms: &[VmStatus]) -> Result<Option<String>> {
    let known: BTreeSet<u32> = vms.iter().filter_map(|vm| vm.pid).collect();
    let mut found = BTreeSet::new();
    for process in process::all()? {
        if process.is_dead && process.parent == daemon {
            return Ok(Some(format!("process {} has ended, and the daemon does not know", process.pid)));
        }
        if process.title.starts_with(&format!("plimsoll-vmm {}", population.prefix)) {
            found.insert(process.pid);
        }
    }
    Ok((found != known).then(|| format!("VMMs are processes {found:?}, the daemon knows {known:?}")))
}

/// Control groups of VMs of this campaign beside those that there should be.
fn other_groups(population: &Population, vms: &[VmStatus]) -> Result<Option<String>> {
    let with = vms.iter().filter(|vm| !vm.missing_jail.contains(&JailPart::Cgroup));
    let known: BTreeSet<String> = with.filter_map(|vm| Some(format!("vm-{}.{}", vm.name, vm.pid?))).collect();
    let found = groups(&format!("vm-{}", population.prefix))?;
    Ok((found != known).then(|| format!("control groups of VMs are {found:?}, and should be {known:?}")))
}

/// The control groups (version 2) whose names begin with `prefix`.
fn groups(prefix: &str) -> Result<BTreeSet<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading what is mounted")?;
    let mut words = mounts.lines().map(|line| line.split(' '));
    let root = words
        .find_map(|mut words| Some((words.nth(1)?, words.next()?)).filter(|(_, kind)| *kind == "cgroup2"));
    let mut directories: Vec<PathBuf> = root.iter().map(|(path, _)| path.into()).collect();
    let mut found = BTreeSet::new();
    while let Some(directory) = directories.pop() {
        // Groups of others come and go.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if name.starts_with(prefix) {
                found.insert(name);
            } else {
                directories.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Files of the daemon and its VMs.
fn files(field: &Field) -> Result<BTreeSet<PathBuf>> {
    let root = field.stage.path();
    let mut found = BTreeSet::new();
    let mut directories = vec![root.join("run"), root.join("state")];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            found.insert(path.strip_prefix(root).unwrap_or(&path).to_owned());
            if path.is_dir() {
                directories.push(path);
            }
        }
    }
    Ok(found)
}

/// Run directories, though no VM runs.
fn runs(field: &Field) -> Result<Option<String>> {
    let runs = field.stage.path().join("run/vms");
    let names: Vec<_> = fs::read_dir(&runs)
        .with_context(|| format!("reading {}", runs.display()))?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    Ok((!names.is_empty()).then(|| format!("run directories are left over: {names:?}")))
}

/// Files of frames, and the memory in them.
fn frames(daemon: u32, host: &HostStatus, vms: &[VmStatus]) -> Result<Option<String>> {
    let mut files: BTreeMap<u64, (Bytes, Vec<&str>)> = BTreeMap::new();
    let processes = vms.iter().filter_map(|vm| Some((vm.name.as_str(), vm.pid?)));
    for (name, pid) in processes.chain([("plimsolld", daemon)]) {
        for (inode, size) in process::memory_files(pid, "plimsoll-frames")? {
            let (memory, holders) = files.entry(inode).or_default();
            *memory = size;
            holders.push(name);
        }
    }
    let memory: Bytes = files.values().map(|(memory, _)| *memory).sum();
    let pages = |bytes: Bytes| Pages::ceil(bytes).0;
    Ok((memory != host.frames).then(|| {
        let file = |(inode, (memory, holders)): (&u64, &(Bytes, Vec<&str>))| {
            format!("{} in file {inode} of {}", pages(*memory), holders.join(", "))
        };
        let each: Vec<String> = files.iter().map(file).collect();
        let (there, known) = (pages(memory), pages(host.frames));
        format!("files hold {there} frames, and the ledger has {known}: {}", each.join("; "))
    }))
}
