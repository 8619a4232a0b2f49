//! System tests: each host is booted once, and its scenarios run in it one after the other; as many hosts run side by
//! side as this machine has processors, since a lab has one.

use std::collections::VecDeque;
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plimsoll_units::Bytes;

use crate::disk;
use crate::kernel::Version;
use crate::lab::wire::{Kind, Request};
use crate::lab::{self, Lab};
use crate::system::{self, HOSTS, Host, Scenario};
use crate::workspace::{self, Programs, note};

use super::{Tally, TestArgs};

/// How long a scenario may take. Two minutes are usual; every wait inside has a shorter deadline of its own.
const LIMIT: Duration = Duration::from_secs(900);

/// How often a scenario is tried in the lab. A guest that was told to crash did not end in two of some eleven runs, for a
/// reason not yet found; the emulation is known to lose interrupts. Every failure is printed in full, and the summary
/// names it: it may be ours.
const TRIES: u32 = 3;

/// The Debian disk that guests boot: big enough for the system and what it writes at its first boot.
const DISK_SIZE: Bytes = Bytes::mib(1024);

/// Runs the scenarios that `arguments` ask for: those that can with model guests on this machine, then all in the lab.
pub(super) fn run(arguments: &TestArgs, tally: &Tally) {
    let wanted: Vec<&Scenario> = system::SCENARIOS.iter().filter(|s| arguments.wants(s.name)).collect();
    if wanted.is_empty() {
        return;
    }
    let mut programs = None;
    tally.run("build", || {
        programs = Some(workspace::build()?);
        Ok(())
    });
    // Without programs there is nothing to run; the tally holds the failure.
    let Some(programs) = programs else { return };
    for scenario in wanted.iter().filter(|scenario| scenario.model) {
        tally.run(&format!("{} with model guests", scenario.name), || {
            modelled(scenario, &programs, arguments.verbose)
        });
    }
    if arguments.no_lab {
        return;
    }
    let hosts = HOSTS.into_iter().map(|host| {
        let here = |s: &&Scenario| arguments.matrix || s.hosts.contains(&host);
        (host, wanted.iter().copied().filter(here).collect::<Vec<_>>())
    });
    let hosts: Mutex<VecDeque<_>> = Mutex::new(hosts.filter(|(_, here)| !here.is_empty()).collect());
    let next = || hosts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let booting = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get).min(HOSTS.len()) {
            scope.spawn(|| {
                while let Some((host, here)) = next() {
                    on_host(host, &here, &programs, &booting, arguments.verbose, tally);
                }
            });
        }
    });
}

/// Runs one scenario with model guests on this machine, in a process of its own with a deadline.
fn modelled(scenario: &Scenario, programs: &Programs, verbose: bool) -> Result<()> {
    let xtask = programs.get("xtask").context("this program has no file")?;
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(xtask).args(["inside", "system", scenario.name, "--model"]);
    let output = command.stdin(Stdio::null()).output().context("starting timeout")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if verbose {
        note(&said);
    }
    if output.status.success() { Ok(()) } else { bail!("it ended with {}:\n{said}", output.status) }
}

/// Runs `scenarios` on `host`. Labs boot one after the other, holding `booting`: they share a cache of kernels and images.
fn on_host(
    host: Host,
    scenarios: &[&Scenario],
    programs: &Programs,
    booting: &Mutex<()>,
    verbose: bool,
    tally: &Tally,
) {
    let wants_disk = scenarios.iter().any(|scenario| scenario.disk);
    let mut lab = None;
    for scenario in scenarios {
        let name = format!("{} on {}", scenario.name, describe(host));
        let try_once = |lab: &mut Option<Lab>| {
            let running = match lab.take() {
                Some(running) => running,
                // None yet, or what ran before brought it down.
                None => {
                    let _alone = booting.lock().unwrap_or_else(PoisonError::into_inner);
                    boot(host, wants_disk, programs)?
                }
            };
            let (running, result) = one(running, scenario, verbose);
            *lab = running;
            result
        };
        tally.run(&name, || {
            for _ in 1..TRIES {
                match try_once(&mut lab) {
                    Ok(()) => return Ok(()),
                    Err(error) => note(&format!("{name}: FAILED, and is tried again: {error:#}")),
                }
                tally.tried_again(&name);
            }
            try_once(&mut lab)
        });
    }
}

fn describe(host: Host) -> String {
    format!("host {} npt={}", host.kernel, u8::from(host.npt))
}

fn boot(host: Host, wants_disk: bool, programs: &Programs) -> Result<Lab> {
    let mut config = lab::Config { kernel: host.kernel, npt: host.npt, ..lab::Config::default() };
    if wants_disk {
        config.share = Some(disk::build(Version::V6_1, DISK_SIZE)?.directory().to_owned());
    }
    Lab::boot(&config, programs)
}

/// Runs one scenario. The lab comes back unless it is no longer fit for another.
fn one(mut lab: Lab, scenario: &Scenario, verbose: bool) -> (Option<Lab>, Result<()>) {
    let argv = ["/bin/xtask", "inside", "system", scenario.name].map(str::to_owned).to_vec();
    let mut said = Vec::new();
    let result = lab.run(&Request { argv, env: Vec::new() }, LIMIT, &mut |kind: Kind, bytes: &[u8]| {
        said.extend(bytes);
        if verbose { lab::show(kind, bytes) } else { Ok(()) }
    });
    let said = if verbose { String::new() } else { String::from_utf8_lossy(&said).into_owned() };
    match result {
        Ok(0) => {
            let complaint = oops(&lab.console());
            // The console keeps the complaint: the next scenario gets a fresh lab.
            (complaint.is_ok().then_some(lab), complaint)
        }
        Ok(status) => {
            let console = lab.console();
            let tail: Vec<&str> = console.lines().rev().take(20).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let error =
                anyhow::anyhow!("it ended with status {status}:\n{said}\nthe host's console:\n{tail}");
            // Whatever it left behind would spoil the next.
            (None, Err(error))
        }
        Err(error) => (None, Err(error).with_context(|| said)),
    }
}

/// A host whose kernel complains has not passed, whatever the scenario says.
fn oops(console: &str) -> Result<()> {
    let signs = [
        "Oops",
        "BUG:",
        "WARNING:",
        "Out of memory",
        "general protection",
        "hung_task",
        "blocked for more than",
    ];
    match console.lines().find(|line| signs.iter().any(|sign| line.contains(sign))) {
        Some(line) => {
            bail!("the host's kernel complained: {line}")
        }
        None => Ok(()),
    }
}
