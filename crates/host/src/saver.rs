//! Writing records to disk without holding up the daemon: one writer, in the order of what was
//! asked for.
//!
//! What cannot be written, because the disk is full for example, is kept in memory and tried again
//! until it is on disk or something newer takes its place ([`pending`]). A VM that is renamed is on
//! disk under one of its names at any time.

mod pending;

use std::time::Duration;

use plimsoll_protocol::VmName;
use plimsoll_protocol::pool::PoolDefinition;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::pending::{Pending, Want};
use crate::core::Input;
use crate::incoming::Incoming;
use crate::inventory::Record;
use crate::paths::Paths;

/// The pause before a failed write is tried again. Longer, and a write waits after room was made;
/// shorter, and a full disk costs processor time.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Saver(mpsc::UnboundedSender<(Job, oneshot::Sender<anyhow::Result<()>>)>);

#[derive(Debug)]
enum Job {
    Save(Box<Record>),
    SavePools(Vec<PoolDefinition>),
    /// A VM's record under its new name, in place of that under the old one.
    Rename(VmName, Box<Record>),
    Forget(VmName),
}

impl Saver {
    /// Starts the writer, which tells `inbox` of what is not on disk. Its queue has no bound of its
    /// own: each job comes from a request that waits or from the end of a process.
    pub(crate) fn start(paths: Paths, inbox: mpsc::Sender<Incoming>) -> Self {
        let (sender, jobs) = mpsc::unbounded_channel();
        tokio::spawn(write(paths, inbox, jobs));
        Self(sender)
    }

    /// Writes a record, after all that was asked for before.
    pub(crate) fn save(&self, record: Box<Record>) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.ask(Job::Save(record))
    }

    /// Writes all pools, after all that was asked for before.
    pub(crate) fn save_pools(
        &self,
        pools: Vec<PoolDefinition>,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.ask(Job::SavePools(pools))
    }

    /// Writes the record of a VM that was called `old`, and removes the one of that name.
    pub(crate) fn rename(
        &self,
        old: VmName,
        record: Box<Record>,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.ask(Job::Rename(old, record))
    }

    /// Removes a VM's record and logs.
    pub(crate) fn forget(&self, vm: VmName) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.ask(Job::Forget(vm))
    }

    /// The job is queued at once; the future is only for the result of its first attempt.
    fn ask(&self, job: Job) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (done, result) = oneshot::channel();
        let asked = self.0.send((job, done)).map_err(|_| anyhow::anyhow!("the writer of records has ended"));
        async move {
            asked?;
            result.await?
        }
    }
}

async fn write(
    paths: Paths,
    inbox: mpsc::Sender<Incoming>,
    mut jobs: mpsc::UnboundedReceiver<(Job, oneshot::Sender<anyhow::Result<()>>)>,
) {
    let mut pending = Pending::default();
    // Jobs that come meanwhile put it off no further.
    let mut again = Instant::now();
    let tell = async |subject, why| {
        // The daemon may be about to end.
        inbox.send(Incoming::Input(Input::Unsaved(subject, why))).await.ok();
    };
    loop {
        let next = tokio::select! {
            next = jobs.recv() => next,
            () = sleep_until(again), if !pending.is_empty() => {
                for (subject, want) in pending.take_all() {
                    match attempt(&paths, &want).await {
                        Ok(()) => {
                            for saved in want.subjects() {
                                tell(saved, None).await;
                            }
                        }
                        Err(_) => pending.keep(subject, want),
                    }
                }
                again = Instant::now() + PAUSE;
                continue;
            }
        };
        let Some((job, done)) = next else { return };
        if pending.is_empty() {
            again = Instant::now() + PAUSE;
        }
        let (subject, want, replaces) = pending.after(job);
        let result = attempt(&paths, &want).await;
        match &result {
            // The core may have heard of a failure only after it had renamed the VM.
            Ok(()) if replaces => {
                for saved in want.subjects() {
                    tell(saved, None).await;
                }
            }
            Ok(()) => {}
            Err(e) => {
                tell(subject.clone(), Some(format!("{e:#}"))).await;
                pending.keep(subject, want);
            }
        }
        done.send(result).ok(); // Nobody may wait for it.
    }
}

async fn attempt(paths: &Paths, want: &Want) -> anyhow::Result<()> {
    let (want, paths) = (want.clone(), paths.clone());
    tokio::task::spawn_blocking(move || want.write(&paths)).await?
}

#[cfg(test)]
mod tests;
