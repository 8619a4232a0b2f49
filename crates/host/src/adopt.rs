//! Finding the VMs that an earlier daemon started.
//!
//! A VM is known by its run directory, which only the daemon's user can write. The process is the one that the record
//! there names by number, start time and boot. (`SO_PEERCRED` would not tell: on a connection to a listening socket it
//! names who called `listen`, which was the earlier daemon.) What the VMM then says of itself is a claim, which
//! [`Core::adopt`](crate::core::Core::adopt) bounds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{Facts, FromVmm};
use plimsoll_protocol::wire::Wire;

use crate::core::{Adopted, foreign};
use crate::kernel_account;
use crate::launch::{self, RunDir, RunRecord};
use crate::paths::Paths;
use crate::process::{Process, boot_id};

/// How long a VMM may take to answer: it first reads what the last daemon left unread.
const HELLO_TIME: Duration = Duration::from_secs(3);

/// A VM that still runs.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) adopted: Adopted,
    pub(crate) process: Process,
    /// `None` where the VMM cannot be spoken to.
    pub(crate) wire: Option<Wire>,
    pub(crate) directory: RunDir,
    pub(crate) record: RunRecord,
}

/// What the run directory tells.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) survivors: Vec<Survivor>,
    /// VMs whose process is gone, and how that is known.
    pub(crate) gone: Vec<(VmName, String)>,
}

/// Looks for VMs that run. What is left of others is removed.
///
/// # Errors
/// The run directory cannot be read.
pub(crate) fn find(paths: &Paths) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let runs = paths.runs();
    let entries = std::fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", runs.display()))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<VmName>().ok())
        else {
            tracing::warn!("{} is no VM's: left alone", path.display());
            continue;
        };
        match survivor(&name, path.clone()) {
            Ok(survivor) => found.survivors.push(survivor),
            Err(why) => {
                tracing::info!(vm = %name, "runs no more: {why:#}");
                clean(&path);
                found.gone.push((name, format!("it was gone when the daemon came back: {why:#}")));
            }
        }
    }
    Ok(found)
}

fn clean(path: &Path) {
    if let Err(e) = launch::remove(path) {
        tracing::warn!("{e:#}");
    }
}

fn survivor(name: &VmName, path: PathBuf) -> anyhow::Result<Survivor> {
    let directory = RunDir::adopt(path)?;
    let record = directory.read_record()?;
    ensure!(record.definition.name == *name, "its record is that of {}", record.definition.name);
    record.definition.check()?;
    ensure!(record.boot_id == boot_id(), "the machine was booted since");
    let process = Process::find(record.pid, record.start_time)?;
    ensure!(!process.is_gone(), "its process has ended");
    let hello = hello(&directory, &process);
    if matches!(&hello, Ok((_, facts)) if facts.ram.1.0 == 0) {
        // The earlier daemon ended before it could say what the VM is to be.
        process.kill();
        anyhow::bail!("it had not been configured");
    }
    let (wire, facts) = match hello {
        Ok((wire, facts)) => (Some(wire), Ok(facts)),
        Err(e) => (None, Err(format!("{e:#}"))),
    };
    let kernel = match &facts {
        Ok(facts) => kernel_account::read(&process, facts.ram),
        Err(_) => kernel_account::read(&process, (0, plimsoll_units::Bytes::ZERO)),
    };
    let adopted = Adopted {
        definition: record.definition.clone(),
        started: record.started,
        pid: record.pid,
        missing_jail: record.missing_jail.clone(),
        facts,
        recorded: directory.read_grant(),
        swap: record.swap,
        kernel,
    };
    Ok(Survivor { adopted, process, wire, directory, record })
}

fn hello(directory: &RunDir, process: &Process) -> anyhow::Result<(Wire, Facts)> {
    let wire = directory.connect()?;
    match launch::receive(&wire, process, Instant::now() + HELLO_TIME)?.0 {
        FromVmm::Hello { version, facts } => match foreign(version) {
            None => Ok((wire, facts)),
            Some(why) => Err(anyhow::Error::msg(why)),
        },
        other => Err(anyhow::anyhow!("it began with {other:?} instead of a hello")),
    }
}
