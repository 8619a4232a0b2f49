//! Finding the VMs that an earlier daemon started.
//!
//! A VM is known by its run directory, which only the daemon's user can write. The process is the
//! one that the record there names by number, start time and boot. (`SO_PEERCRED` would not tell:
//! on a connection to a listening socket it names the process that called `listen`, which was the
//! earlier daemon.)
//!
//! Finding a VM does not wait for its VMM: [`crate::reach`] finds out whether that answers.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Context;
use plimsoll_protocol::VmName;
use plimsoll_units::Bytes;

use crate::launch::{self, Gone, Look, There, look};
use crate::paths::{Paths, remove_cut_off};

/// A VM that still runs, as far as can be told.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) vm: VmName,
    pub(crate) directory: PathBuf,
    pub(crate) there: There,
}

/// What the run directory tells.
#[derive(Debug, Default)]
pub(crate) struct RunDirectories {
    pub(crate) survivors: Vec<Survivor>,
    /// VMs that are gone, and how that is known.
    pub(crate) gone: Vec<(VmName, Gone)>,
}

impl RunDirectories {
    /// Machine memory that all survivors take: their own, and the frames that they share.
    pub(crate) fn memory(&self) -> Bytes {
        let own: Bytes = self.survivors.iter().map(|survivor| survivor.there.kernel.process.anonymous).sum();
        let pids = self.survivors.iter().filter_map(|s| s.there.process.as_ref().ok()).map(|p| p.pid());
        own.saturating_add(frames(pids))
    }
}

/// Memory of the frames that processes of an earlier daemon share.
pub(crate) fn frames(pids: impl Iterator<Item = u32>) -> Bytes {
    let frames: BTreeMap<u64, u64> = pids.flat_map(pools).collect();
    Bytes(frames.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)))
}

/// The pools of frames that a process has open, by number, with the bytes that each takes. A pool
/// has the same number in each member of its domain.
fn pools(pid: u32) -> Vec<(u64, u64)> {
    /// The unit of `st_blocks`, whatever the file system's own.
    const BLOCK: u64 = 512;
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let size = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let is_pool = target.to_str().is_some_and(|target| target.starts_with("/memfd:plimsoll-frames"));
        let file = is_pool.then(|| std::fs::metadata(entry.path()).ok()).flatten()?;
        Some((file.ino(), file.blocks().saturating_mul(BLOCK)))
    };
    open.flatten().filter_map(size).collect()
}

/// Looks for VMs that run. The run directories of those that are gone are removed, and no others.
///
/// # Errors
/// The run directory cannot be read.
pub(crate) fn find(paths: &Paths) -> anyhow::Result<RunDirectories> {
    let mut found = RunDirectories::default();
    let runs = paths.runs();
    let entries = std::fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", runs.display()))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<VmName>().ok())
        else {
            tracing::warn!("{} is no VM's: left alone", path.display());
            continue;
        };
        match look(&name, &path) {
            Look::There(there) => {
                remove_cut_off(&path);
                found.survivors.push(Survivor { vm: name, directory: path, there: *there });
            }
            Look::Gone(how) => {
                tracing::info!(vm = %name, ?how, "runs no more");
                if let Err(e) = launch::remove(&path) {
                    tracing::warn!("{e:#}");
                }
                found.gone.push((name, how));
            }
        }
    }
    Ok(found)
}
