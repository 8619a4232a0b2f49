//! Guests that work and share pages, in the lab.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::standstill::Standstill;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::guests::content::Content;
use crate::guests::worker::{Job, Worker};

/// What a daemon is told for sharing as the paper's: the sooner the better, and large pages do not
/// count.
pub(super) const SETTINGS: &str = "eager_sharing = true\n";

/// How often it is looked at what guests share.
const LOOK: Duration = Duration::from_secs(1);
/// After so long without more of it, what they share is all that they do.
const QUIET: Duration = Duration::from_secs(20);
/// And after so long anyway.
const SETTLED: Duration = Duration::from_secs(300);
/// A gain below this part of guests' memory counts as none.
const MORE: u64 = 400;

/// After this many scans of a whole guest, all that idle guests can share was found.
const PASSES: u64 = 3;

/// Guests that belong together.
pub(super) struct Fleet {
    directory: PathBuf,
    workers: Vec<Worker>,
    /// What came out of units of work of a kind with a seed.
    answers: BTreeMap<(String, u32, u32), u64>,
}

/// What the guests of a fleet share. As in the paper, pages of zeros are shared, and cost nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Picture {
    /// Their guest-physical memory.
    pub(super) memory: Bytes,
    /// What of it others have, too, or is zeros.
    pub(super) shared: Bytes,
    /// By how much less machine memory they need for that.
    pub(super) reclaimed: Bytes,
    /// What of it is zeros.
    pub(super) zero: Bytes,
    /// Machine memory that is their own.
    pub(super) held: Bytes,
    /// What has been looked at since they were started, again and again.
    pub(super) scanned: Bytes,
    /// What they have written after it was shared.
    pub(super) broken: Bytes,
}

impl Picture {
    /// The names of its fields for [`Picture::csv`].
    pub(super) const HEAD: &str =
        "memory_bytes,shared_bytes,reclaimed_bytes,zero_bytes,held_bytes,scanned_bytes,broken_bytes";

    /// As comma-separated values.
    pub(super) fn csv(&self) -> String {
        let Self { memory, shared, reclaimed, zero, held, scanned, broken } = self;
        [memory, shared, reclaimed, zero, held, scanned, broken].map(|bytes| bytes.0.to_string()).join(",")
    }

    /// In percent of the guests' memory.
    #[expect(clippy::cast_precision_loss, reason = "a part")]
    pub(super) fn percent(&self, part: Bytes) -> f64 {
        100.0 * part.0 as f64 / self.memory.0.max(1) as f64
    }
}

impl Fleet {
    /// Guests with what [`crate::guests::debian_disk::build`] left in `directory`; none so far.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, workers: Vec::new(), answers: BTreeMap::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// One guest more, which has worked for a unit.
    pub(super) fn add(&mut self, stage: &Stage, job: Job) -> Result<()> {
        let (begin, name) = (Instant::now(), job.name.clone());
        let mut worker = Worker::start(stage, &self.directory, job)?;
        worker.begin(1)?;
        worker.end()?;
        self.workers.push(worker);
        note(&format!("{name} works after {:.0} s", begin.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Every guest does `units` units of work, all at the same time.
    pub(super) fn work(&mut self, units: u32) -> Result<()> {
        for worker in &mut self.workers {
            worker.begin(units)?;
        }
        for worker in &mut self.workers {
            let answer = worker.end()?;
            let Job { name, work, seed, .. } = worker.job();
            let before = *self.answers.entry((work.to_string(), *seed, units)).or_insert(answer);
            ensure!(
                before == answer,
                "{name} got {answer} and not {before}: its memory is not what it wrote"
            );
        }
        Ok(())
    }

    /// No guest runs until this is dropped.
    pub(super) fn stop(&self, stage: &Stage) -> Result<Vec<Standstill>> {
        let stop = |worker: &Worker| {
            let name = &worker.job().name;
            let pid = stage.vm(name)?.pid.with_context(|| format!("{name} has no process"))?;
            Standstill::of(pid)
        };
        self.workers.iter().map(stop).collect()
    }

    /// How much of their memory they would not need if each content were there once, and zeros not
    /// at all.
    pub(super) fn mergeable(&self, stage: &Stage) -> Result<Bytes> {
        let _still = self.stop(stage)?;
        let mut content = Content::default();
        for worker in &self.workers {
            let Job { name, size, .. } = worker.job();
            content.add(stage.vm(name)?.pid.with_context(|| format!("{name} has no process"))?, *size)?;
        }
        // Zeros that were found are not there any more.
        let mergeable = content.mergeable().bytes() + self.picture(stage)?.zero;
        note(&format!("{mergeable} of their memory is there more than once, or zero"));
        Ok(mergeable)
    }

    /// What they share now.
    pub(super) fn picture(&self, stage: &Stage) -> Result<Picture> {
        let mut picture = Picture::default();
        for vm in stage.vms()? {
            if self.workers.iter().any(|worker| worker.job().name == vm.name.as_str()) {
                picture.memory = picture.memory + vm.size;
                picture.shared = picture.shared + vm.sharing.shared + vm.sharing.zero;
                picture.reclaimed = picture.reclaimed + vm.sharing.saved;
                picture.zero = picture.zero + vm.sharing.zero;
                picture.held = picture.held + vm.held;
                picture.scanned = picture.scanned + vm.sharing.scanned;
                picture.broken = picture.broken + vm.sharing.broken;
            }
        }
        Ok(picture)
    }

    /// How much of each has been looked at since it was started, again and again.
    fn looked_at(&self, stage: &Stage) -> Result<Vec<Bytes>> {
        self.workers.iter().map(|worker| Ok(stage.vm(&worker.job().name)?.sharing.scanned)).collect()
    }

    /// Waits until they share no more than they did.
    pub(super) fn settle(&self, stage: &Stage) -> Result<Picture> {
        let begin = Instant::now();
        let (mut most, mut rose, looked) = (Picture::default(), begin, self.looked_at(stage)?);
        loop {
            let picture = self.picture(stage)?;
            if picture.reclaimed >= most.reclaimed + Bytes(picture.memory.0 / MORE) {
                (most, rose) = (picture, Instant::now());
            }
            let settled = rose.elapsed() >= QUIET && {
                let now = self.looked_at(stage)?;
                let mut passes = self.workers.iter().zip(now.iter().zip(&looked));
                passes.all(|(worker, (now, before))| now.0 - before.0 >= PASSES * worker.job().size.0)
            };
            if settled || begin.elapsed() >= SETTLED {
                note(&format!(
                    "{} of {} shared, {} reclaimed, {} of it zero, {} own, {} looked at, {} written again, after {:.0} s{}",
                    picture.shared,
                    picture.memory,
                    picture.reclaimed,
                    picture.zero,
                    picture.held,
                    picture.scanned,
                    picture.broken,
                    begin.elapsed().as_secs_f64(),
                    if settled { "" } else { ": still more" }
                ));
                return Ok(picture);
            }
            thread::sleep(LOOK);
        }
    }
}
