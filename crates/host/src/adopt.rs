//! Finding the VMs that an earlier daemon started.
//!
//! A VM is known by its run directory, which only the daemon's user can write. The process is the one that the record
//! there names by number, start time and boot. (`SO_PEERCRED` would not tell: on a connection to a listening socket it
//! names who called `listen`, which was the earlier daemon.) What the VMM then says of itself is a claim, which
//! [`Core::adopt`](crate::core::Core::adopt) bounds.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use plimsoll_protocol::VmName;
use plimsoll_protocol::control::{Facts, FromVmm};
use plimsoll_protocol::sharing::DomainId;
use plimsoll_protocol::wire::Wire;
use plimsoll_units::{Bytes, Pages};
use rustix::fs::fstat;

use crate::core::{Adopted, Stock, foreign};
use crate::kernel_account;
use crate::launch::{self, RunDir, RunRecord};
use crate::paths::Paths;
use crate::process::{Process, boot_id};

/// How long a VMM may take to answer: it first reads what the last daemon left unread.
const HELLO_TIME: Duration = Duration::from_secs(3);

/// How long it may take to say which frames it holds: some ten million a second.
const STOCK_TIME: Duration = Duration::from_secs(10);

/// A VM that still runs.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) adopted: Adopted,
    pub(crate) process: Process,
    /// `None` where the VMM cannot be spoken to.
    pub(crate) wire: Option<Wire>,
    pub(crate) directory: RunDir,
    pub(crate) record: RunRecord,
    /// A message that came in place of what the VMM might have said of its frames.
    pub(crate) first: Option<FromVmm>,
}

/// What the run directory tells.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) survivors: Vec<Survivor>,
    /// VMs whose process is gone, and how that is known.
    pub(crate) gone: Vec<(VmName, String)>,
}

impl Found {
    /// Machine memory that frames of all sharing domains take.
    pub(crate) fn frames(&self) -> Bytes {
        /// The unit of `st_blocks`, whatever the file system's own.
        const BLOCK: u64 = 512;
        let stocks = self.survivors.iter().filter_map(|survivor| survivor.adopted.stock.as_ref());
        let blocks =
            |stock: &Stock| fstat(&stock.pool).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0));
        let each: BTreeMap<DomainId, u64> = stocks.map(|stock| (stock.domain.id, blocks(stock))).collect();
        Bytes(each.values().fold(0, |sum, blocks| sum.saturating_add(blocks.saturating_mul(BLOCK))))
    }
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
    let hello = hello(&directory, &process, &record);
    if matches!(&hello, Ok(greeting) if greeting.facts.ram.1.0 == 0) {
        // The earlier daemon ended before it could say what the VM is to be.
        process.kill();
        anyhow::bail!("it had not been configured");
    }
    let (wire, facts, stock, first) = match hello {
        Ok(Greeting { wire, facts, stock, first }) => (Some(wire), Ok(facts), stock, first),
        Err(e) => (None, Err(format!("{e:#}")), None, None),
    };
    let kernel = match &facts {
        Ok(facts) => kernel_account::read(&process, facts.ram),
        Err(_) => kernel_account::read(&process, (0, Bytes::ZERO)),
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
        domains: record.domains.clone(),
        former: record.former.clone(),
        stock,
    };
    Ok(Survivor { adopted, process, wire, directory, record, first })
}

/// What a VMM says first.
struct Greeting {
    wire: Wire,
    facts: Facts,
    stock: Option<Stock>,
    first: Option<FromVmm>,
}

fn hello(directory: &RunDir, process: &Process, record: &RunRecord) -> anyhow::Result<Greeting> {
    let wire = directory.connect()?;
    let facts = match launch::receive(&wire, process, Instant::now() + HELLO_TIME)?.0 {
        FromVmm::Hello { version, facts } => match foreign(version) {
            None => facts,
            Some(why) => anyhow::bail!(why),
        },
        other => anyhow::bail!("it began with {other:?} instead of a hello"),
    };
    if record.domains.is_empty() {
        // It cannot hold frames.
        return Ok(Greeting { wire, facts, stock: None, first: None });
    }
    let deadline = Instant::now() + STOCK_TIME;
    let said =
        launch::receive(&wire, process, deadline).context("it does not say whether it holds frames")?;
    let (stock, first) = match said {
        (FromVmm::Pool(domain), fds) => {
            let stock = stock(&wire, process, record, domain, fds, deadline);
            (Some(stock.context("it does not say which frames it holds")?), None)
        }
        (other, _) => (None, Some(other)),
    };
    Ok(Greeting { wire, facts, stock, first })
}

/// What a VMM holds of a domain, whose number and descriptor it has told.
fn stock(
    wire: &Wire,
    process: &Process,
    record: &RunRecord,
    domain: DomainId,
    mut fds: Vec<OwnedFd>,
    deadline: Instant,
) -> anyhow::Result<Stock> {
    let known = record.domains.iter().find(|known| known.id == domain);
    let known = known.with_context(|| format!("it was never told of domain {}", domain.0))?;
    let pool = fds.pop().context("no descriptor came with them")?;
    let most = Pages::floor(record.definition.size).0;
    let mut holds = Vec::new();
    loop {
        match launch::receive(wire, process, deadline)?.0 {
            FromVmm::Holds { pages, last } => {
                holds.extend(pages);
                ensure!(holds.len() as u64 <= most, "it holds more frames than it has pages");
                if last {
                    return Ok(Stock { domain: known.clone(), pool, holds });
                }
            }
            other => bail!("it goes on with {other:?}"),
        }
    }
}
