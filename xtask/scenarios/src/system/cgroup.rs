//! VMMs that a guest has taken over, each within the control group of its VM: one that allocates
//! without end dies alone, one that forks and one that fills its log harm nobody. A program put
//! into the group stands for each.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_protocol::status::Power;
use plimsoll_units::Bytes;

use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::agreement;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;

use crate::guests::Guests;

const HOG: &str = "hog";
const FORKER: &str = "forker";
const TALKER: &str = "talker";
const SMALL: Bytes = Bytes::mib(64);
const SIZE: Bytes = Bytes::mib(256);
const TOUCHED: Bytes = Bytes::mib(96);
const BUDGET: Bytes = Bytes::mib(640);
/// Most that a bound may be above the grant: overhead, and what the kernel counts besides.
const BESIDE: Bytes = Bytes::mib(64);
/// Longest log of a VMM at any time, with what comes in a second.
const LOG: u64 = 2 << 20;
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let mut stage = Stage::open(BUDGET)?;
    let result = scenario(&mut stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &mut Stage, kinds: Guests) -> Result<()> {
    stage.run(&Definition::new("good", SIZE, kinds.run(Version::V6_12)))?;
    for name in [HOG, FORKER, TALKER] {
        stage.run(&Definition::new(name, SMALL, Runs::Model))?;
    }
    let mut good = stage.toucher("good")?;
    good.ask(&format!("touch {} 1", TOUCHED.0), LIMIT)?;
    follows(stage, "good")?;
    hog(stage)?;
    unharmed(stage, &mut good)?;
    forker(stage)?;
    unharmed(stage, &mut good)?;
    talker(stage)?;
    unharmed(stage, &mut good)?;
    stage.kill_daemon()?;
    stage.start_daemon()?;
    good.ask("free 1", LIMIT)?;
    good.ask(&format!("touch {} 1", TOUCHED.0), LIMIT)?;
    unharmed(stage, &mut good)?;
    follows(stage, "good")?;
    for name in [FORKER, TALKER] {
        let group = group_of(stage, name)?;
        stage.facts::<serde_json::Value>(&["kill", name])?;
        stage.wait("all that was in its group is gone", LIMIT, |_| Ok((!group.exists()).then_some(())))?;
    }
    good.send("poweroff")?;
    stage.wait_off("good", LIMIT)?;
    stage.wait_free().map(drop)
}

/// The bound of a VM's group is what it is granted, and a little more.
fn follows(stage: &Stage, name: &str) -> Result<()> {
    let group = group_of(stage, name)?;
    ensure!(read(&group, "memory.swap.max")? == "0" && read(&group, "memory.oom.group")? == "1");
    let (grant, most) = stage.wait("the bound is that of the grant", LIMIT, |stage| {
        let most = Bytes(read(&group, "memory.max")?.parse().context("memory.max")?);
        let grant = stage.vm(name)?.grant;
        Ok((most >= grant && most <= grant + BESIDE).then_some((grant, most)))
    })?;
    note(&format!("{name} is granted {grant}, and its group may use {most}"));
    Ok(())
}

/// A VMM that allocates without end is ended by the kernel, with all that is in its group.
fn hog(stage: &Stage) -> Result<()> {
    let group = group_of(stage, HOG)?;
    let mut program = inside(&group, "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done")?;
    let vm = stage.wait_off(HOG, LIMIT)?;
    let exit = vm.exit.context("it has no reason")?.to_string();
    ensure!(exit.contains("more memory than it was granted"), "{exit}");
    ensure!(!program.wait()?.success(), "the program that took the memory was not ended");
    stage.wait("its group is gone", LIMIT, |_| Ok((!group.exists()).then_some(())))
}

/// One that forks without end has as many processes as it may, and its VM runs on.
fn forker(stage: &Stage) -> Result<()> {
    let group = group_of(stage, FORKER)?;
    let most = read(&group, "pids.max")?;
    let mut program = inside(&group, "while :; do sleep 600 & done")?;
    stage.wait("it has all processes that it may have", LIMIT, |_| {
        Ok((read(&group, "pids.events")? != "max 0").then_some(()))
    })?;
    note(&format!("{} processes of {most}", read(&group, "pids.current")?));
    ensure!(stage.vm(FORKER)?.power == Power::On, "it did not survive its own processes");
    program.kill().and_then(|()| program.wait()).context("ending the program that forks").map(drop)
}

/// One that fills its log loses lines, and neither the disk nor the daemon.
fn talker(stage: &Stage) -> Result<()> {
    let pid = stage.vm(TALKER)?.pid.context("it has no process")?;
    let mut log = File::options()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/{pid}/fd/2"))
        .context("opening its log as it has it")?;
    let line = "a VMM that a guest has taken over talks without end\n".repeat(64);
    let (begin, mut longest) = (Instant::now(), 0);
    let file = stage.path().join(format!("state/logs/{TALKER}.vmm"));
    while begin.elapsed() < Duration::from_secs(10) {
        log.write_all(line.as_bytes()).ok(); // What does not fit is lost.
        longest = longest.max(fs::metadata(&file)?.len());
    }
    note(&format!("its log was {} at most", Bytes(longest)));
    ensure!(longest > 0 && longest <= LOG, "its log was {} at most", Bytes(longest));
    ensure!(stage.vm(TALKER)?.power == Power::On);
    Ok(())
}

/// The daemon answers, its account is the kernel's, and the good guest has lost nothing.
fn unharmed(stage: &Stage, good: &mut Toucher) -> Result<()> {
    ensure!(good.verify_all(LIMIT)? == TOUCHED.0, "the good guest did not verify all that it wrote");
    ensure!(stage.vm("good")?.power == Power::On, "the good guest did not survive");
    let host = stage.host()?;
    ensure!(host.granted + host.overhead + host.frames + host.free == host.budget, "{host:?}");
    agreement::wait_for_agreement(stage, LIMIT)
}

/// The control group that a VM's process is in.
fn group_of(stage: &Stage, name: &str) -> Result<PathBuf> {
    let pid = stage.vm(name)?.pid.with_context(|| format!("{name} has no process"))?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
    ensure!(own.contains(&format!("vm-{name}.")), "{name} is in {own}");
    Ok(Path::new("/sys/fs/cgroup").join(own))
}

/// Runs `script` in `group`.
fn inside(group: &Path, script: &str) -> Result<Child> {
    let enter = format!("echo $$ > {}/cgroup.procs && {{ {script}; }}", group.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("starting a program in the VM's group")
}

fn read(group: &Path, name: &str) -> Result<String> {
    let path = group.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_owned())
}
