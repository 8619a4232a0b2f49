//! System tests: each host is booted once, and its scenarios run in it one after the other. As many
//! hosts run side by side as this machine has processors and memory for; a lab has one processor.
//!
//! A scenario that fails has failed. It runs again only after the run's first fault of the
//! emulator.

use std::collections::VecDeque;
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use plimsoll_lab::attempt::{Failed, judged};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::wire::{Kind, Request};
use plimsoll_lab::workspace::{self, Programs, note};
use plimsoll_lab::{Config, Lab, debian, show};
use plimsoll_units::Bytes;

use super::arguments::TestArgs;
use super::tally::Tally;
use crate::system::{self, HOSTS, Host, Scenario, Share};

/// How long a scenario may take. Two minutes are usual; every wait inside has a shorter deadline of
/// its own.
const LIMIT: Duration = Duration::from_secs(900);

/// The same for a slow one: ten minutes are usual.
const SLOW_LIMIT: Duration = Duration::from_secs(3600);

/// The Debian disk that guests boot: big enough for the system and what it writes at its first
/// boot.
const DISK_SIZE: Bytes = Bytes::mib(1024);

/// Runs the scenarios that `arguments` ask for: those that can with model guests on this machine,
/// then all in the lab.
pub(super) fn run(arguments: &TestArgs, tally: &Tally) {
    let wants = |s: &&Scenario| if s.slow { arguments.names(s.name) } else { arguments.wants(s.name) };
    let wanted: Vec<&Scenario> = system::SCENARIOS.iter().filter(wants).collect();
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
        for _ in 0..side_by_side() {
            scope.spawn(|| {
                while let Some((host, here)) = next() {
                    on_host(host, &here, &programs, &booting, arguments.verbose, tally);
                }
            });
        }
    });
}

/// How many labs run at the same time.
fn side_by_side() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let memory = preflight::available().map(|size| Bytes(size.0));
    fitting(processors.min(HOSTS.len()), memory, Config::default().memory)
}

/// At most `wanted` labs of `size` each, as many as `memory` holds, and one at least.
fn fitting(wanted: usize, memory: Option<Bytes>, size: Bytes) -> usize {
    let fit = memory.and_then(|memory| usize::try_from(memory.0 / size.0.max(1)).ok());
    wanted.min(fit.unwrap_or(wanted)).max(1)
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

/// Runs `scenarios` on `host`. Labs boot one after the other, holding `booting`: they share a cache
/// of kernels and images.
fn on_host(
    host: Host,
    scenarios: &[&Scenario],
    programs: &Programs,
    booting: &Mutex<()>,
    verbose: bool,
    tally: &Tally,
) {
    // A lab, and what it has in its shared directory.
    let mut lab: Option<(Lab, Option<Share>)> = None;
    for (index, scenario) in scenarios.iter().enumerate() {
        let name = format!("{} on {}", scenario.name, describe(host));
        let mut attempt = || -> Result<(), Failed> {
            let fitting = lab.take().filter(|(_, has)| scenario.share.is_none() || *has == scenario.share);
            let (running, share) = match fitting {
                Some(running) => running,
                // None yet, or what ran before brought it down, or had something else to share.
                None => {
                    let _alone = booting.lock().unwrap_or_else(PoisonError::into_inner);
                    let share = scenarios[index..].iter().find_map(|scenario| scenario.share);
                    (boot(host, share, programs)?, share)
                }
            };
            let (running, result) = one(running, scenario, verbose);
            lab = running.map(|running| (running, share));
            result
        };
        let mut excuses = |signature: &str| tally.excuses(&name, signature);
        tally.run(&name, || judged(&name, &mut attempt, &mut excuses));
    }
}

fn describe(host: Host) -> String {
    format!("host {} npt={}", host.kernel, u8::from(host.npt))
}

fn boot(host: Host, share: Option<Share>, programs: &Programs) -> Result<Lab> {
    let share = match share {
        None => None,
        Some(Share::DebianDisk) => Some(debian::build(Version::V6_1, DISK_SIZE)?.directory().to_owned()),
        Some(Share::CloudImage) => Some(debian::cloud::build()?.directory().to_owned()),
    };
    Lab::boot(&Config { kernel: host.kernel, npt: host.npt, share, ..Config::default() }, programs)
}

/// Runs one scenario. The lab comes back unless it is no longer fit for another.
fn one(mut lab: Lab, scenario: &Scenario, verbose: bool) -> (Option<Lab>, Result<(), Failed>) {
    let argv = ["/bin/xtask", "inside", "system", scenario.name].map(str::to_owned).to_vec();
    let mut said = Vec::new();
    let limit = if scenario.slow { SLOW_LIMIT } else { LIMIT };
    let result = lab.run(&Request { argv, env: Vec::new() }, limit, &mut |kind: Kind, bytes: &[u8]| {
        said.extend(bytes);
        if verbose { show(kind, bytes) } else { Ok(()) }
    });
    let said = String::from_utf8_lossy(&said).into_owned();
    let error = match result {
        Ok(0) => match oops(&lab.console()) {
            Ok(()) => return (Some(lab), Ok(())),
            Err(complaint) => complaint,
        },
        Ok(status) => {
            anyhow!("it ended with status {status}:\n{said}\nthe lab's console:\n{}", lab.console_tail())
        }
        Err(error) => error.context(said),
    };
    // What is left behind would spoil the next scenario, which gets a new lab.
    (None, Err(Failed { console: lab.console(), ..Failed::from(error) }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_run_side_by_side_as_far_as_memory_goes() {
        let gib = |n: u64| Bytes::mib(n << 10);
        assert_eq!(fitting(4, Some(gib(23)), gib(3)), 4);
        assert_eq!(fitting(4, Some(gib(7)), gib(3)), 2);
        assert_eq!(fitting(4, Some(gib(1)), gib(3)), 1);
        assert_eq!(fitting(4, None, gib(3)), 4);
    }
}
