//! From a definition to a running VMM: everything is opened and checked before anything is started,
//! and what was begun is undone where a later step fails.

mod agent_disk;
mod bzimage;
pub(crate) mod disk;
mod greeting;
mod pre_exec;
mod record;
mod resources;
mod rundir;
mod seed;
mod socket;
mod spawn;
mod survey;
mod tap;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use jiff::Timestamp;
use plimsoll_policy::Rules;
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{
    BootConfig, FdRole, FromVmm, GuestKind, NetConfig, SamplingConfig, SwapConfig, ToVmm, VsockConfig,
};
use plimsoll_protocol::definition::{BootFrom, JailPart, MacAddress, VmDefinition};
use plimsoll_protocol::wire::Wire;
use plimsoll_units::Pages;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[cfg(feature = "fuzzing")]
pub(crate) use self::bzimage::check as check_kernel;
pub(crate) use self::greeting::{Greeted, facts_of, identify_by_greeting};
pub(crate) use self::record::RunRecord;
use self::resources::Resources;
pub(crate) use self::rundir::{RunDir, remove};
pub(crate) use self::spawn::reserve_control_fd;
pub(crate) use self::survey::{Gone, Look, There, identify, look};
use crate::cgroup::{Cgroups, MemoryBound};
use crate::descriptors;
use crate::images::KnownImage;
use crate::log_pipe::LogPipe;
use crate::paths::Paths;
use crate::process::{Process, boot_id, last_line, start_time};
use crate::swap::SwapSite;

/// How long a VMM may take to send its greeting, right after it starts.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// What a launch needs to know of the host.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) paths: Paths,
    pub(crate) vmm: PathBuf,
    /// The agent's program, for guests.
    pub(crate) agent: PathBuf,
    pub(crate) log: String,
    pub(crate) sampling: SamplingConfig,
    pub(crate) cgroups: Result<Cgroups, String>,
    /// Where VMs get swap space; `None`: they get none.
    pub(crate) swap: Option<SwapSite>,
    pub(crate) rules: Rules,
}

/// A VM that has to be launched.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) definition: VmDefinition,
    /// Images that it has used before.
    pub(crate) images: Vec<KnownImage>,
    /// Already charged.
    pub(crate) grant: Pages,
    /// The user for it; `None` where the daemon cannot give one.
    pub(crate) uid: Option<u32>,
    /// The context identifier of its vsock, if it has one.
    pub(crate) cid: Option<u32>,
    pub(crate) started: Timestamp,
}

/// A VMM that has its configuration. Its run directory stays when this is dropped.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) process: Process,
    pub(crate) child: Child,
    pub(crate) wire: Wire,
    pub(crate) directory: RunDir,
    pub(crate) record: RunRecord,
    /// Its images, as they were found.
    pub(crate) images: Vec<KnownImage>,
    /// `None`: the kernel does not hold it to its grant.
    pub(crate) bound: Option<MemoryBound>,
    pub(crate) log: LogPipe,
}

/// Starts a VMM.
///
/// # Errors
/// What failed, on what, and what to do, in one line; nothing is left of the attempt.
pub(crate) fn launch(site: &Site, plan: &Plan) -> anyhow::Result<Launched> {
    descriptors::check()?;
    let definition = &plan.definition;
    let name = &definition.name;
    let missing = missing_parts(site, plan)?;
    let resources = Resources::open(definition, &plan.images, &site.paths.images, &site.agent)?;
    let images = resources.images();
    let swap = swap_space(site, definition)?;
    // From here on files and processes are made. Each is removed by its owner if a later step
    // fails.
    let mut directory = RunDir::create(&site.paths, name)?;
    let listener = directory.listen_for_daemon()?;
    let console = directory.listen_for_console(plan.uid)?;
    let vsock = definition.vsock.map(|_| directory.listen_for_vsock()).transpose()?;
    let console_log = rundir::console_log(&site.paths, name)?;
    let (log, vmm_log) = directory.log_pipe(&site.paths, name)?;
    let child = spawn::spawn(&site.vmm, &site.log, name, listener, vmm_log)?;
    let mut child = Undo { child: Some(child), site, name };
    let pid = child.get()?.id();
    let process = Process::of_child(child.get()?)?;
    let bound = match &site.cgroups {
        Ok(cgroups) => cgroups
            .put(definition, pid, plan.grant)
            .context("cannot put the VM in a control group of its own")?,
        Err(_) => None, // One of the missing parts.
    };
    let record = RunRecord {
        pid,
        start_time: start_time(pid).context("cannot read when the VMM began")?,
        boot_id: boot_id().context("cannot read which boot of the machine this is")?,
        uid: plan.uid,
        cid: plan.cid,
        started: plan.started,
        definition: definition.clone(),
        missing_jail: missing,
        swap: swap.as_ref().map_or(Pages::ZERO, |swap| swap.config.slots),
        domains: Vec::new(),
        former: Vec::new(),
        beside: bound.as_ref().map(MemoryBound::beside),
        remarks: resources.remarks(),
    };
    directory.write_record(&record)?;
    directory.write_grant(plan.grant)?;
    let wire = directory.connect()?;
    let failed = |e: anyhow::Error| {
        log.pump();
        match last_line(&site.paths.vmm_log(name)) {
            line if line.is_empty() => e,
            line => e.context(format!("its log ends with: {line}")),
        }
    };
    greet(&wire, &process).map_err(failed)?;
    let (mut config, mut fds) = boot_config(site, plan, resources, console_log, console)?;
    config.store = site.rules.store(config.size);
    if let Some(listener) = vsock {
        config.fds.push(FdRole::VsockListener);
        fds.push(listener);
    }
    if let Some(SwapSpace { file, config: swap }) = swap {
        config.swap = Some(swap);
        config.fds.push(FdRole::Swap);
        fds.push(file.into());
    }
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    wire.send(&ToVmm::Boot(Box::new(config)), &fds).context("cannot send the VMM its configuration")?;
    // The guest runs from here on. If the daemon ends before it takes over what is returned, the
    // next one finds the VM by its directory.
    directory.keep();
    let child =
        child.child.take().ok_or_else(|| anyhow!("internal error: the VMM's process handle is gone"))?;
    Ok(Launched { process, child, wire, directory, record, images, bound, log })
}

/// A VM's swap space, allocated.
struct SwapSpace {
    file: File,
    config: SwapConfig,
}

/// Swap space for a VM of `definition`, if the host has any and the VM needs it.
fn swap_space(site: &Site, definition: &VmDefinition) -> anyhow::Result<Option<SwapSpace>> {
    let slots = Pages::floor(definition.size).saturating_sub(Pages::ceil(definition.reservation));
    let Some(swap) = site.swap.as_ref().filter(|_| slots > Pages::ZERO) else { return Ok(None) };
    let file = swap.allocate(slots)?;
    Ok(Some(SwapSpace { file, config: SwapConfig { slots, encrypt: swap.encrypt } }))
}

/// A child that is killed and waited for, and its group removed, unless it is taken out.
struct Undo<'a> {
    child: Option<Child>,
    site: &'a Site,
    name: &'a VmName,
}

impl Undo<'_> {
    fn get(&self) -> anyhow::Result<&Child> {
        self.child.as_ref().ok_or_else(|| anyhow!("the child has been taken"))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Err(e) = child.kill().and_then(|()| child.wait().map(drop)) {
            tracing::error!("cannot end a VMM that did not come up: {e}");
        }
        if let Ok(cgroups) = &self.site.cgroups {
            cgroups.remove(self.name, child.id());
        }
    }
}

/// The parts of the jail that the daemon should give and cannot.
fn missing_parts(site: &Site, plan: &Plan) -> anyhow::Result<Vec<JailPart>> {
    let mut missing = Vec::new();
    let uid = plan.uid.is_none().then(|| match rustix::process::geteuid().is_root() {
        true => "all users that plimsolld may give are in use".to_owned(),
        false => "plimsolld does not run as root".to_owned(),
    });
    let cgroup = site.cgroups.as_ref().err().cloned();
    for (part, why) in [(JailPart::Uid, uid), (JailPart::Cgroup, cgroup)] {
        let Some(why) = why else { continue };
        ensure!(
            plan.definition.jail.allow_missing.contains(&part),
            "the {part} part of the jail is not available: {why}; to run without it add \"{part}\" to jail.allow_missing"
        );
        missing.push(part);
    }
    Ok(missing)
}

/// Reads the VMM's greeting.
fn greet(wire: &Wire, process: &Process) -> anyhow::Result<()> {
    let greeting = receive(wire, process, Instant::now() + HELLO_TIME)?;
    facts_of(greeting, "install both of one release").map(drop)
}

/// The next message, which must come before `deadline` and the process' end.
fn receive(wire: &Wire, process: &Process, deadline: Instant) -> anyhow::Result<FromVmm> {
    let pidfd = process.watch()?;
    loop {
        match wire.receive() {
            Err(e) if e.would_block() => {}
            result => return result.map(|(message, _)| message).context("the VMM did not send its greeting"),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the VMM did not answer within {} s", HELLO_TIME.as_secs());
        ensure!(!process.is_gone(), "the VMM ended at once");
        let mut fds = [PollFd::new(wire, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(left)?)).context("poll")?;
    }
}

fn vsock_config(definition: &VmDefinition, cid: Option<u32>) -> Option<VsockConfig> {
    let (vsock, cid) = definition.vsock.zip(cid)?;
    Some(VsockConfig { cid, connections: vsock.connections })
}

fn boot_config(
    site: &Site,
    plan: &Plan,
    resources: Resources,
    console_log: std::os::fd::OwnedFd,
    console: std::os::fd::OwnedFd,
) -> anyhow::Result<(BootConfig, Vec<std::os::fd::OwnedFd>)> {
    let definition = &plan.definition;
    let mac = |(index, net): (usize, &plimsoll_protocol::definition::Net)| NetConfig {
        mac: net.mac.unwrap_or_else(|| MacAddress::derived(&definition.name, index)),
        settings: net.into(),
    };
    let boot = &definition.boot;
    let (guest, cmdline) = match boot.from {
        Some(BootFrom::Disk) => (GuestKind::Disk, boot.append.clone().unwrap_or_default()),
        None if boot.model => (GuestKind::Model, boot.cmdline.clone()),
        None => (GuestKind::Kernel, boot.cmdline.clone()),
    };
    let disks = resources.disk_configs(definition);
    let (mut roles, mut fds) = resources.into_parts()?;
    roles.extend([FdRole::ConsoleLog, FdRole::ConsoleListener]);
    fds.extend([console_log, console]);
    let config = BootConfig {
        name: definition.name.clone(),
        size: Pages::floor(definition.size),
        vcpus: definition.vcpus,
        cpu: definition.cpu,
        cmdline,
        guest,
        bus: definition.bus,
        disks,
        nets: definition.nets.iter().enumerate().map(mac).collect(),
        vsock: vsock_config(definition, plan.cid),
        balloon: definition.balloon,
        grant: plan.grant,
        huge_pages: true,
        sampling: site.sampling,
        store: Pages::ZERO,
        swap: None,
        uid: plan.uid,
        allow_missing: definition.jail.allow_missing.clone(),
        fds: roles,
    };
    Ok((config, fds))
}
