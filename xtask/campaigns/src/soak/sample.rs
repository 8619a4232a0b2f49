//! What daemon, VMMs and directories have at one time, by the kernel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use plimsoll_operate::resources::Reading;
use plimsoll_operate::{Stage, smaps};
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;
use serde::Serialize;

use super::churn::lives_throughout;

/// Memory that the daemon's history takes for each VM every five seconds. It grows until it has
/// 2^18 of them, after four hours with 64 VMs: what it grows by is known, and no leak.
const READING: u64 = 192;
/// Seconds between two of them.
const READING_EVERY: f64 = 5.0;

/// One look. Sizes are in MiB, so that they can be drawn and judged like counts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Hours since the first VM started.
    pub(super) hours: f64,
    /// VMs that are on.
    pub(super) on: usize,
    pub(super) daemon: Part,
    /// What the daemon's history has grown by.
    pub(super) history: f64,
    /// The VMMs that live throughout, on average.
    pub(super) lasting: Part,
    /// Mappings of guest memory of those, on average.
    pub(super) islands: f64,
    /// All VMMs, added up.
    pub(super) all: Part,
    /// In the run directory.
    pub(super) run_files: f64,
    /// KiB in those.
    pub(super) run_kib: f64,
    /// In the state directory.
    pub(super) state_files: f64,
}

/// One process or several, without guest memory.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Part {
    pub(super) pss: f64,
    pub(super) anonymous: f64,
    pub(super) descriptors: f64,
    pub(super) mappings: f64,
    pub(super) threads: f64,
}

impl Sample {
    /// Looks at the daemon of `stage` and at its `vms`. `since` the first of them started.
    pub(super) fn take(stage: &Stage, since: Duration, vms: &[VmStatus]) -> Result<Self> {
        let daemon = stage.daemon_pid()?;
        let daemon = Reading::of(daemon)?.context("the daemon has ended")?;
        let (mut parts, mut islands) = (Vec::new(), 0.0);
        for vm in vms.iter().filter(|vm| vm.power == Power::On) {
            let Some(pid) = vm.pid else { continue };
            let Some(reading) = Reading::of(pid)? else { continue };
            // What a guest has, and in how many mappings, follows from its grant and from what it
            // shares, which move all the time. The pmap bounds both.
            let Some(account) = smaps::account(pid, vm.size)? else { continue };
            let within = smaps::guest_memory(pid, vm.size)?.len() as u64;
            let part = Part::of(&Reading {
                pss: reading.pss.saturating_sub(account.guest),
                anonymous: account.private,
                mappings: reading.mappings.saturating_sub(within),
                ..reading
            });
            let lasts = lives_throughout(vm.name.as_str());
            islands += if lasts { count(within) } else { 0.0 };
            parts.push((lasts, part));
        }
        let lasting: Vec<Part> = parts.iter().filter(|(lasts, _)| *lasts).map(|(_, part)| *part).collect();
        let on = parts.len();
        Ok(Self {
            hours: since.as_secs_f64() / 3600.0,
            on,
            daemon: Part::of(&daemon),
            history: history(since, on),
            lasting: sum(&lasting).over(lasting.len()),
            islands: islands / count(lasting.len().max(1) as u64),
            all: sum(&parts.iter().map(|(_, part)| *part).collect::<Vec<_>>()),
            run_files: count(files(&stage.path().join("run")).0),
            run_kib: in_mib(files(&stage.path().join("run")).1) * 1024.0,
            state_files: count(files(&stage.path().join("state")).0),
        })
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let Self { daemon, lasting, .. } = self;
        format!(
            "{:.1} min, {} on: daemon {:.1} MiB, {} descriptors, {} mappings; VMM {:.2} MiB, {:.1}, {:.1}; files {} + {}",
            self.hours * 60.0,
            self.on,
            daemon.anonymous,
            daemon.descriptors,
            daemon.mappings,
            lasting.anonymous,
            lasting.descriptors,
            lasting.mappings,
            self.run_files,
            self.state_files
        )
    }
}

impl Part {
    fn of(reading: &Reading) -> Self {
        Self {
            pss: in_mib(reading.pss),
            anonymous: in_mib(reading.anonymous),
            descriptors: count(reading.descriptors),
            mappings: count(reading.mappings),
            threads: count(reading.threads),
        }
    }

    fn over(self, of: usize) -> Self {
        let of = count(of.max(1) as u64);
        self.map(|value| value / of)
    }

    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            pss: change(self.pss),
            anonymous: change(self.anonymous),
            descriptors: change(self.descriptors),
            mappings: change(self.mappings),
            threads: change(self.threads),
        }
    }
}

fn sum(parts: &[Part]) -> Part {
    parts.iter().fold(Part::default(), |sum, part| Part {
        pss: sum.pss + part.pss,
        anonymous: sum.anonymous + part.anonymous,
        descriptors: sum.descriptors + part.descriptors,
        mappings: sum.mappings + part.mappings,
        threads: sum.threads + part.threads,
    })
}

/// MiB of the daemon's history after `since` with `on` VMs.
fn history(since: Duration, on: usize) -> f64 {
    in_mib(Bytes(READING)) * count(on as u64) * since.as_secs_f64() / READING_EVERY
}

/// Files and directories below `directory`, and what is in the files.
fn files(directory: &Path) -> (u64, Bytes) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.fold((0, Bytes::ZERO), |(files_before, bytes_before), entry| {
        // One that is removed meanwhile has nothing.
        let (below, bytes) = match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => files(&entry.path()),
            Ok(metadata) => (0, Bytes(metadata.len())),
            Err(_) => (0, Bytes::ZERO),
        };
        (files_before + 1 + below, bytes_before + bytes)
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn in_mib(bytes: Bytes) -> f64 {
    bytes.0 as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_at_every_depth() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/c"), "12345").unwrap();
        assert_eq!(files(directory.path()), (3, Bytes(5)));
        assert_eq!(files(&directory.path().join("none")), (0, Bytes::ZERO));
    }

    #[test]
    fn an_average_is_of_each_figure() {
        let part = Part { pss: 2.0, anonymous: 4.0, descriptors: 6.0, mappings: 8.0, threads: 10.0 };
        let average = sum(&[part, part, part.map(|value| 4.0 * value)]).over(3);
        assert_eq!((average.pss, average.anonymous, average.mappings), (4.0, 8.0, 16.0));
    }
}
