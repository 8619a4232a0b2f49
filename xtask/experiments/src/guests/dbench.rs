//! dbench in a guest, as a person would run it there.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::{Answer, Toucher};
use plimsoll_protocol::control::RateLimit;
use plimsoll_units::Bytes;
use rustix::fs::{SeekFrom, seek};
use serde::{Deserialize, Serialize};

use super::dbench_disk::{LOAD, files};

/// How long a small thing in the guest may take.
const LIMIT: Duration = Duration::from_secs(180);

/// How long a run may take. Half a minute is usual on a machine that does nothing else.
const RUN: Duration = Duration::from_secs(900);

/// Clients of a run, as in the paper.
pub(crate) const CLIENTS: u32 = 40;

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Clients of a run.
    #[arg(long)]
    pub(crate) clients: u32,
    /// What the clients of a run move together, in MB.
    #[arg(long)]
    pub(crate) megabytes: u32,
}

/// A guest with dbench on a disk of its own.
pub(crate) struct Dbench {
    name: String,
    guest: Toucher,
}

impl Dbench {
    /// Starts a VM with what [`super::dbench_disk::build`] left in `share`, and waits until dbench
    /// can run. Its disk is held to `disk_rate`.
    pub(crate) fn start(
        stage: &Stage,
        share: &Path,
        name: &str,
        size: Bytes,
        disk_rate: RateLimit,
    ) -> Result<Self> {
        let [kernel, initrd, original] = files(share);
        let disk: PathBuf = stage.path().join(format!("{name}.disk"));
        copy_sparse(&original, &disk).with_context(|| format!("copying {}", original.display()))?;
        let mut definition = Definition::new(name, size, Runs::Debian { kernel, initrd, disk });
        // As in the paper's time, only a balloon takes memory from the guest: what it frees it
        // keeps.
        definition.reports_free_pages = false;
        definition.boot_disk_rate = disk_rate;
        stage.run(&definition)?;
        let mut dbench = Self { name: name.to_owned(), guest: stage.toucher(name)? };
        dbench.shell("mkdir /work && mount -t ext4 -o noatime /dev/vda /work && mkdir /work/files", LIMIT)?;
        Ok(dbench)
    }

    /// Makes the guest touch its free memory, with its page cache, and lets go of the cache: what
    /// the guest has not been given yet it would otherwise be given while it is measured. Files of
    /// an earlier run are gone afterwards.
    pub(crate) fn fill(&mut self, bytes: Bytes) -> Result<()> {
        let mib = bytes.0 >> 20;
        let fresh = "rm -rf /work/files && mkdir /work/files";
        let fill = format!("dd if=/dev/vda of=/dev/null bs=1M count={mib} 2>/dev/null");
        self.shell(&format!("{fresh} && {fill} && sync && echo 3 >/proc/sys/vm/drop_caches"), LIMIT).map(drop)
    }

    /// Lets clients read and write until they have moved `load` together. Returns how many MB it
    /// was in the end: dbench tells once a second.
    ///
    /// It is as much work whatever time it takes. dbench itself works for a time, in which an
    /// emulated guest gets no further than the machine allows.
    pub(crate) fn run(&mut self, load: Load) -> Result<f64> {
        let Load { clients, megabytes } = load;
        // With its longest time dbench counts from the beginning. It goes with the first thing that
        // it says to nobody.
        let dbench = format!("chroot /work /usr/bin/dbench -c {LOAD} -D /files -t 36000 {clients}");
        let watch = format!(
            "awk '$4 == \"MB/sec\" {{ moved = $3 * $6 }} moved >= {megabytes} {{ exit }} END {{ print \"moved\", moved }}'"
        );
        // The guest's first process reaps orphans after this only: until then they are listed as
        // zombies.
        let alive = "cat /proc/[0-9]*/stat 2>/dev/null | grep -q '(dbench) [^ZX]'";
        let end = format!("while {alive}; do killall -9 dbench 2>/dev/null; sleep 0.1; done");
        let answer = self.shell(&format!("{dbench} | {watch}; {end}; true"), RUN)?;
        let moved = moved(answer.text());
        let moved = moved.with_context(|| format!("dbench in {} said {:?}", self.name, answer.text()))?;
        ensure!(moved >= f64::from(megabytes), "dbench in {} ended after {moved} MB", self.name);
        Ok(moved)
    }

    fn shell(&mut self, line: &str, limit: Duration) -> Result<Answer> {
        let answer = self.guest.ask(&format!("run {line}"), limit)?;
        ensure!(answer.number("status")? == 0, "{}: {line}: {}", self.name, answer.text());
        Ok(answer)
    }
}

/// Copies a file that is mostly holes, and leaves them holes.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let (mut source, mut copy) = (File::open(from)?, File::create(to)?);
    let length = source.metadata()?.len();
    copy.set_len(length)?;
    let mut at = 0;
    while at < length {
        // Only a hole follows the last data.
        let Ok(begin) = seek(&source, SeekFrom::Data(at)) else { break };
        at = seek(&source, SeekFrom::Hole(begin))?;
        source.seek(io::SeekFrom::Start(begin))?;
        copy.seek(io::SeekFrom::Start(begin))?;
        io::copy(&mut (&source).take(at - begin), &mut copy)?;
    }
    Ok(())
}

/// The number in `moved 251.3`.
fn moved(text: &str) -> Result<f64> {
    let (_, number) = text.split_once("moved ").context("nothing of what was moved")?;
    number.trim().parse().with_context(|| format!("{number:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_data_and_the_length() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        let mut file = File::create(&from).unwrap();
        io::Write::write_all(&mut file, &[7; 5000]).unwrap();
        file.seek(io::SeekFrom::Start(1 << 20)).unwrap();
        io::Write::write_all(&mut file, &[8; 3]).unwrap();
        file.set_len(3 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    }

    #[test]
    fn what_was_moved_is_read() {
        assert_eq!(moved("run status=0 said: moved 251.3").unwrap(), 251.3);
        assert!(moved("run status=0 said: moved").is_err());
    }
}
