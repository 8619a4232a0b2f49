//! Writing records to disk without holding up the daemon: one writer, in the order of what was asked for.

use plimsoll_protocol::VmName;
use plimsoll_protocol::pool::PoolDefinition;
use tokio::sync::{mpsc, oneshot};

use crate::inventory::{self, Record};
use crate::paths::Paths;
use crate::pools;

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Saver(mpsc::UnboundedSender<(Job, oneshot::Sender<anyhow::Result<()>>)>);

#[derive(Debug)]
enum Job {
    Save(Box<Record>),
    SavePools(Vec<PoolDefinition>),
    Forget(VmName),
}

impl Saver {
    /// Starts the writer. Its queue has no bound of its own: each job comes from a request that waits or from the end of
    /// a process.
    pub(crate) fn start(paths: Paths) -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel::<(Job, oneshot::Sender<_>)>();
        tokio::spawn(async move {
            while let Some((job, done)) = jobs.recv().await {
                let paths = paths.clone();
                let written = tokio::task::spawn_blocking(move || match job {
                    Job::Save(record) => inventory::save(&paths, &record),
                    Job::SavePools(all) => pools::save(&paths, &all),
                    Job::Forget(vm) => inventory::forget(&paths, &vm),
                });
                let result = written.await.unwrap_or_else(|e| Err(anyhow::Error::from(e)));
                if let Err(e) = &result {
                    tracing::error!("{e:#}");
                }
                // Nobody may wait for it; the error is in the log then.
                done.send(result).ok();
            }
        });
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

    /// Removes a VM's record and logs.
    pub(crate) fn forget(&self, vm: VmName) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.ask(Job::Forget(vm))
    }

    /// The job is queued at once; the future is only for its result.
    fn ask(&self, job: Job) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (done, result) = oneshot::channel();
        let asked = self.0.send((job, done)).map_err(|_| anyhow::anyhow!("the writer of records has ended"));
        async move {
            asked?;
            result.await?
        }
    }
}
