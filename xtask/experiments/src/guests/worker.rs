//! A guest that works: programs of Debian's, with their files in its page cache.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

use super::debian_disk::{Work, files};

/// How long it may take until a guest can work. Half a minute is usual.
const LIMIT: Duration = Duration::from_secs(240);

/// How long a turn of work may take, with all others working at the same time.
const TURN: Duration = Duration::from_secs(600);

/// What a guest is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its name.
    pub(crate) name: String,
    /// Its kernel.
    pub(crate) kernel: Version,
    /// Guest-physical memory.
    pub(crate) size: Bytes,
    /// Its sharing domain, as in a definition.
    pub(crate) sharing: String,
    /// What it works on.
    pub(crate) work: Work,
    /// With which numbers.
    pub(crate) seed: u32,
}

/// Such a guest, running.
pub(crate) struct Worker {
    job: Job,
    guest: Toucher,
}

impl Worker {
    /// Starts it with what [`super::debian_disk::build`] left in `share`, and waits until it can
    /// work.
    pub(crate) fn start(stage: &Stage, share: &Path, job: Job) -> Result<Self> {
        let [kernel, initrd, disk] = files(share, job.kernel);
        let mut definition = Definition::new(&job.name, job.size, Runs::Kernel { kernel, initrd });
        definition.read_only_disks.push(disk);
        definition.sharing = Some(job.sharing.clone());
        // As in the paper's time, what the guest frees it keeps.
        definition.reports_free_pages = false;
        stage.run(&definition)?;
        let mut worker = Self { guest: stage.toucher(&job.name)?, job };
        let Job { work, seed, .. } = worker.job;
        worker
            .shell("mkdir /work && mount -t ext4 -o ro /dev/vda /work && mount -t tmpfs tmpfs /work/tmp")?;
        worker.shell("mkfifo /work/tmp/ask /work/tmp/answer")?;
        worker.shell(&format!(
            "chroot /work /usr/bin/perl /load.pl {work} {seed} </dev/null >/work/tmp/said 2>&1 &"
        ))?;
        worker.shell("find /work/usr /work/lib -type f | xargs cat >/dev/null")?;
        Ok(worker)
    }

    /// What it is like.
    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    /// Starts `units` units of work.
    pub(crate) fn begin(&mut self, units: u32) -> Result<()> {
        self.guest.send(&format!("run echo {units} >/work/tmp/ask && head -n 1 /work/tmp/answer"))
    }

    /// Waits until they are done. Returns what came out, which is the same for the same units of
    /// the same job.
    pub(crate) fn end(&mut self) -> Result<u64> {
        let answer = self.guest.receive("run", TURN)?;
        let text = answer.text();
        let (_, sum) =
            text.split_once("sum ").with_context(|| format!("{} answered {text:?}", self.job.name))?;
        sum.trim().parse().with_context(|| format!("{} answered {text:?}", self.job.name))
    }

    fn shell(&mut self, line: &str) -> Result<()> {
        let answer = self.guest.ask(&format!("run {line}"), LIMIT)?;
        ensure!(answer.number("status")? == 0, "{}: {line}: {}", self.job.name, answer.text());
        Ok(())
    }
}
