//! Writing records to disk without holding up the daemon: one writer, in the order of what was
//! asked for.
//!
//! What cannot be written, because the disk is full for example, is kept in memory and tried again
//! until it is on disk or something newer takes its place.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_protocol::VmName;
use plimsoll_protocol::pool::PoolDefinition;
use tokio::sync::{mpsc, oneshot};

use crate::core::Input;
use crate::incoming::Incoming;
use crate::inventory::{self, Record};
use crate::paths::Paths;
use crate::pools;

/// The pause before a failed write is tried again. Longer, and an operator who has made room waits;
/// shorter, and a full disk costs processor time.
const PAUSE: Duration = Duration::from_secs(5);

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Saver(mpsc::UnboundedSender<(Job, oneshot::Sender<anyhow::Result<()>>)>);

#[derive(Clone, Debug)]
enum Job {
    Save(Box<Record>),
    SavePools(Vec<PoolDefinition>),
    /// A VM's record under its new name, in place of that under the old one.
    Rename(VmName, Box<Record>),
    Forget(VmName),
}

impl Job {
    /// Which file it is about: that of a VM or, `None`, that of all pools. A newer job on a file
    /// replaces an older one.
    fn subject(&self) -> Option<VmName> {
        match self {
            Self::Save(record) | Self::Rename(_, record) => Some(record.definition.name.clone()),
            Self::Forget(vm) => Some(vm.clone()),
            Self::SavePools(_) => None,
        }
    }

    async fn carry_out(&self, paths: &Paths) -> anyhow::Result<()> {
        let (job, paths) = (self.clone(), paths.clone());
        let written = tokio::task::spawn_blocking(move || match job {
            Self::Save(record) => inventory::save(&paths, &record),
            Self::SavePools(all) => pools::save(&paths, &all),
            Self::Rename(old, record) => inventory::rename(&paths, &old, &record),
            Self::Forget(vm) => inventory::forget(&paths, &vm),
        });
        written.await?
    }
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
    let mut failed: BTreeMap<Option<VmName>, Job> = BTreeMap::new();
    let tell = async |subject, why| {
        // The daemon may be about to end.
        inbox.send(Incoming::Input(Input::Unsaved(subject, why))).await.ok();
    };
    loop {
        let next = tokio::select! {
            next = jobs.recv() => next,
            () = tokio::time::sleep(PAUSE), if !failed.is_empty() => {
                for (subject, job) in std::mem::take(&mut failed) {
                    match job.carry_out(&paths).await {
                        Ok(()) => tell(subject, None).await,
                        Err(_) => drop(failed.insert(subject, job)),
                    }
                }
                continue;
            }
        };
        let Some((job, done)) = next else { return };
        let result = job.carry_out(&paths).await;
        let subject = job.subject();
        let replaced = replace(&mut failed, &subject);
        match &result {
            Ok(()) if replaced => tell(subject, None).await,
            Ok(()) => {}
            Err(e) => {
                tell(subject.clone(), Some(format!("{e:#}"))).await;
                failed.insert(subject, job);
            }
        }
        done.send(result).ok(); // Nobody may wait for it.
    }
}

/// Takes the failed job on `subject` out, which a newer one replaces. Returns whether there was
/// one.
fn replace(failed: &mut BTreeMap<Option<VmName>, Job>, subject: &Option<VmName>) -> bool {
    // The record under the old name is another VM's now.
    for job in failed.values_mut() {
        if let Job::Rename(old, record) = job
            && subject.as_ref() == Some(&*old)
        {
            *job = Job::Save(record.clone());
        }
    }
    let replaced = failed.remove(subject);
    let there = replaced.is_some();
    // The newer job does not know of the record under the old name.
    if let Some(Job::Rename(old, _)) = replaced {
        failed.insert(Some(old.clone()), Job::Forget(old));
    }
    there
}
