//! Carrying out a point: the changes, the attack, and what undoes it.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_operate::Stage;
use plimsoll_operate::standstill::Standstill;
use plimsoll_operate::swap_space::SwapFile;
use plimsoll_operate::tmpfs::Full;
use plimsoll_protocol::status::VmStatus;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::change::Change;
use super::field::Field;
use super::point::{Fault, Point};
use super::population::{Population, SIZE};
use super::tally::Tally;

/// Descriptors that a daemon is left with beyond those that it has: fewer than this.
const FEW: u64 = 8;
/// Descriptors of a daemon that starts with too few for all VMs: those that it keeps back, and
/// those of some VMs.
const TOO_FEW: u64 = 72;
/// Commands that run at once while the daemon has few descriptors.
const CLIENTS: usize = 6;
/// How long a command may take that meets an attack. The daemon's own deadlines are shorter.
const COMMAND: Duration = Duration::from_secs(60);
/// How long the daemon may take to see that killed VMMs are gone.
const OFF: Duration = Duration::from_secs(30);
/// A start takes several times as long as a change.
const STARTS: u32 = 5;
const TICK: Duration = Duration::from_millis(5);

/// VMs that the attack ended or damaged, by their places: each is to be started anew.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Their VMMs were killed.
    pub(super) killed: Vec<usize>,
    /// Their VMMs were killed, and the daemon ended while it started them; whether it had said
    /// before that it did. Those run.
    pub(super) starting: Vec<(usize, bool)>,
    /// Its swap space cannot be read: it ends once it needs a page of it. The file system is full
    /// until the VM is off: a write would make zeros of what is lost before it.
    pub(super) unreadable: Option<(usize, Full)>,
    /// Their swap space cannot be written: all of them go on.
    pub(super) unwritable: Vec<usize>,
}

/// Does what `point` says. When it returns the daemon runs, and no process is stopped.
pub(super) fn carry_out(
    point: &Point,
    field: &mut Field,
    population: &mut Population,
    tally: &mut Tally,
) -> Result<Aftermath> {
    for change in &point.before {
        make(change, &field.stage, population, tally)?;
    }
    let vms = field.stage.vms()?;
    let pid = |at: &usize| pid_of(&vms, &population.vms[*at].name);
    let victims = point.victims.iter().map(pid).collect::<Result<Vec<Pid>>>()?;
    let under_way = begin(&point.during, &field.stage, population)?;
    thread::sleep(point.delay);
    let mut aftermath = Aftermath::default();
    match point.fault {
        Fault::KillDaemon => {
            field.stage.kill_daemon()?;
            thread::sleep(point.pause);
            field.start_daemon(point.without_ring)?;
        }
        Fault::EndDaemon => {
            field.stage.end_daemon()?;
            thread::sleep(point.pause);
            field.start_daemon(point.without_ring)?;
        }
        Fault::KillDaemonAmidStarts | Fault::EndDaemonAmidStarts => {
            aftermath.starting = amid_starts(point, field, population, &victims)?;
        }
        Fault::StopDaemon => {
            let _still = Standstill::of(field.stage.daemon_pid()?)?;
            thread::sleep(point.pause);
        }
        Fault::KillVmms => signal(&victims, Signal::KILL)?,
        Fault::StopVmms => {
            signal(&victims, Signal::STOP)?;
            thread::sleep(point.pause);
            signal(&victims, Signal::CONT)?;
        }
        Fault::KillBoth => {
            signal(&victims, Signal::KILL)?;
            field.stage.kill_daemon()?;
            thread::sleep(point.pause);
            field.start_daemon(point.without_ring)?;
        }
        Fault::StopVmmsKillDaemon => {
            signal(&victims, Signal::STOP)?;
            field.stage.kill_daemon()?;
            let started = field.start_daemon(point.without_ring);
            thread::sleep(point.pause);
            signal(&victims, Signal::CONT)?;
            started?;
        }
        Fault::StopDaemonKillVmms => {
            let _still = Standstill::of(field.stage.daemon_pid()?)?;
            signal(&victims, Signal::KILL)?;
            thread::sleep(point.pause);
        }
        Fault::FullDisk => full_disk(point, field)?,
        Fault::NoSwapSpace => aftermath.unwritable.extend(fail_writes(point, field, population, &vms)?),
        Fault::LostSwap => aftermath.unreadable = fail_reads(point, field, population, &vms)?,
        Fault::FewDescriptors => few_descriptors(point, field, tally)?,
    }
    if matches!(point.fault, Fault::KillVmms | Fault::KillBoth | Fault::StopDaemonKillVmms) {
        aftermath.killed.clone_from(&point.victims);
    }
    finish(under_way, tally)?;
    Ok(aftermath)
}

/// Kills VMMs, has the daemon start their VMs anew, and ends it meanwhile.
fn amid_starts(
    point: &Point,
    field: &mut Field,
    population: &Population,
    victims: &[Pid],
) -> Result<Vec<(usize, bool)>> {
    signal(victims, Signal::KILL)?;
    let names = point.victims.iter().map(|at| (*at, population.vms[*at].name.as_str()));
    for (_, name) in names.clone() {
        field.stage.wait_off(name, OFF)?;
    }
    let start = |(at, name)| -> Result<(usize, Child)> {
        let mut command = field.stage.command(&["start", name])?;
        Ok((at, command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    };
    let starts = names.map(start).collect::<Result<Vec<_>>>()?;
    thread::sleep(point.delay * STARTS);
    match point.fault {
        Fault::EndDaemonAmidStarts => field.stage.end_daemon()?,
        _ => field.stage.kill_daemon()?,
    }
    thread::sleep(point.pause);
    field.start_daemon(point.without_ring)?;
    starts.into_iter().map(|(at, start)| Ok((at, succeeds(start)?))).collect()
}

/// The file system of the state directory is full for a while, and a daemon may start meanwhile.
fn full_disk(point: &Point, field: &mut Field) -> Result<()> {
    let state = field.state.as_ref().context("there is no file system of its own to fill")?;
    let full = state.fill()?;
    thread::sleep(point.pause);
    if point.at_start || point.without_ring {
        field.stage.kill_daemon()?;
        field.start_daemon(point.without_ring)?;
    }
    drop(full);
    Ok(())
}

/// Loses the space of a VM's swap file that was not written yet, while there is no other. Returns
/// the VM.
fn fail_writes(
    point: &Point,
    field: &Field,
    population: &Population,
    vms: &[VmStatus],
) -> Result<Option<usize>> {
    let Some((at, pid, file)) = reachable(point, field, population, vms)? else { return Ok(None) };
    let full = {
        let _still = Standstill::of(raw(pid))?;
        file.lose_unwritten()?;
        field.swap.fill()?
    };
    thread::sleep(point.pause);
    drop(full);
    Ok(Some(at))
}

/// Loses what a VM's swap file holds, and the space for it. Returns the VM.
fn fail_reads(
    point: &Point,
    field: &Field,
    population: &Population,
    vms: &[VmStatus],
) -> Result<Option<(usize, Full)>> {
    let Some((at, pid, file)) = reachable(point, field, population, vms)? else { return Ok(None) };
    let full = {
        let _still = Standstill::of(raw(pid))?;
        file.lose()?;
        field.swap.fill()?
    };
    thread::sleep(point.pause);
    Ok(Some((at, full)))
}

/// The first VM from the first victim on whose swap file can be reached: those that swap with an
/// io_uring leave theirs to the kernel.
fn reachable(
    point: &Point,
    field: &Field,
    population: &Population,
    vms: &[VmStatus],
) -> Result<Option<(usize, Pid, SwapFile)>> {
    let count = population.vms.len();
    for at in point.victims.iter().flat_map(|first| (0..count).map(move |step| (first + step) % count)) {
        let pid = pid_of(vms, &population.vms[at].name)?;
        if let Ok(file) = field.swap.file_of(raw(pid)) {
            return Ok(Some((at, pid, file)));
        }
    }
    Ok(None)
}

/// Leaves the daemon few descriptors for a while, and has clients ask for more.
fn few_descriptors(point: &Point, field: &mut Field, tally: &mut Tally) -> Result<()> {
    if point.at_start {
        field.stage.kill_daemon()?;
        field.stage.spawn_daemon()?;
    }
    let daemon = field.stage.daemon_pid()?;
    let process = process(daemon)?;
    let usual = getrlimit(Resource::Nofile).maximum;
    let few = if point.at_start {
        Rlimit { current: Some(TOO_FEW), maximum: Some(TOO_FEW) }
    } else {
        let path = format!("/proc/{daemon}/fd");
        let open = fs::read_dir(&path).with_context(|| format!("reading {path}"))?.count();
        Rlimit { current: Some(u64::try_from(open)? + point.seed % FEW), maximum: usual }
    };
    prlimit(Some(process), Resource::Nofile, few).context("taking descriptors from the daemon")?;
    let ask = || -> Result<Child> {
        let mut command = field.stage.command(&["ps"])?;
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    let clients = (0..CLIENTS).map(|_| ask()).collect::<Result<Vec<_>>>()?;
    thread::sleep(point.pause);
    let back = Rlimit { current: usual, maximum: usual };
    match prlimit(Some(process), Resource::Nofile, back) {
        Ok(_) => {}
        // Without CAP_SYS_RESOURCE no process raises a hard limit: a new daemon has the usual one.
        Err(Errno::PERM) if point.at_start => {
            field.stage.kill_daemon()?;
            field.stage.spawn_daemon()?;
        }
        Err(error) => return Err(error).context("giving the daemon its descriptors back"),
    }
    for client in clients {
        if !succeeds(client)? {
            tally.count("commands refused for lack of descriptors");
        }
    }
    field.stage.wait_for_daemon()
}

/// Makes a change. The daemon may refuse it, and then nothing has changed.
fn make(change: &Change, stage: &Stage, population: &mut Population, tally: &mut Tally) -> Result<()> {
    let vm = &mut population.vms[change.vm];
    let [option, value] = change.option();
    let output = stage.plimsoll(&["set", &vm.name, &option, &value])?;
    if output.status.success() {
        vm.settings.note(change, SIZE, true);
        tally.count("changes made");
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        // Invalid, in conflict with its state, or refused for want of memory.
        ensure!(
            matches!(output.status.code(), Some(2 | 4 | 5)),
            "plimsoll set {} {option} {value}: {why}",
            vm.name
        );
        tally.count("changes refused");
    }
    Ok(())
}

/// Begins changes, which may be made or not when the attack comes.
fn begin(changes: &[Change], stage: &Stage, population: &mut Population) -> Result<Vec<Child>> {
    let mut under_way = Vec::new();
    for change in changes {
        let vm = &mut population.vms[change.vm];
        let [option, value] = change.option();
        let mut command = stage.command(&["set", &vm.name, &option, &value])?;
        under_way.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        vm.settings.note(change, SIZE, false);
    }
    Ok(under_way)
}

fn finish(under_way: Vec<Child>, tally: &mut Tally) -> Result<()> {
    for command in under_way {
        let made = succeeds(command)?;
        tally.count(if made { "changes made during an attack" } else { "changes cut off or refused" });
    }
    Ok(())
}

/// Waits for a command. Returns whether it succeeded.
fn succeeds(mut command: Child) -> Result<bool> {
    let deadline = Instant::now() + COMMAND;
    loop {
        if let Some(status) = command.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            // It may have ended this moment.
            command.kill().ok();
            command.wait()?;
            anyhow::bail!("a command during an attack did not end in {} s", COMMAND.as_secs());
        }
        thread::sleep(TICK);
    }
}

fn pid_of(vms: &[VmStatus], name: &str) -> Result<Pid> {
    let vm = vms.iter().find(|vm| vm.name.as_str() == name);
    let pid = vm.with_context(|| format!("the daemon does not list {name}"))?.pid;
    process(pid.with_context(|| format!("{name} has no process"))?)
}

fn process(pid: u32) -> Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process"))
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn signal(victims: &[Pid], signal: Signal) -> Result<()> {
    for victim in victims {
        kill_process(*victim, signal).with_context(|| format!("sending {signal:?} to {victim:?}"))?;
    }
    Ok(())
}
