use std::collections::{BTreeMap, BTreeSet};

use plimsoll_protocol::VmName;
use plimsoll_protocol::pool::PoolDefinition;

use super::Job;
use crate::inventory::{self, Record};
use crate::paths::Paths;
use crate::pools;

/// Whose file it is: that of a VM or, `None`, that of all pools.
pub(super) type Subject = Option<VmName>;

/// What has to be in a file.
#[derive(Clone, Debug)]
enum Content {
    Record(Box<Record>),
    Pools(Vec<PoolDefinition>),
    /// There has to be no file.
    Nothing,
}

/// What has to be on disk of one subject.
#[derive(Clone, Debug)]
pub(super) struct Want {
    subject: Subject,
    content: Content,
    /// Names that the VM had. Their files go once its own is written: until then one of them is all
    /// that there is of the VM on disk.
    former: BTreeSet<VmName>,
    /// Names that another VM had, which is removed. Their files go likewise, their logs as well.
    removed: BTreeSet<VmName>,
}

impl Want {
    /// Under which names nothing is left to write once this is written: its own first.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> {
        let others = self.former.iter().chain(&self.removed).cloned().map(Some);
        [self.subject.clone()].into_iter().chain(others)
    }

    /// Writes it. Does no harm where it has been written in part.
    ///
    /// # Errors
    /// Which file could not be written or removed.
    pub(super) fn write(&self, paths: &Paths) -> anyhow::Result<()> {
        match (&self.content, &self.subject) {
            (Content::Record(record), _) => inventory::save(paths, record)?,
            (Content::Pools(all), _) => pools::save(paths, all)?,
            (Content::Nothing, Some(vm)) => inventory::forget(paths, vm)?,
            (Content::Nothing, None) => {}
        }
        for old in &self.former {
            if let (Content::Record(_), Some(vm)) = (&self.content, &self.subject) {
                inventory::take_logs(paths, old, vm);
            }
            inventory::forget(paths, old)?;
        }
        self.removed.iter().try_for_each(|old| inventory::forget(paths, old))
    }
}

/// What has to be on disk, could not be written and is tried again.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<Subject, Want>);

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has to be on disk after `job`, and its subject. It takes the place of what is pending
    /// for the same VM, by its old name as well; the flag says whether there was something.
    pub(super) fn after(&mut self, job: Job) -> (Subject, Want, bool) {
        let (subject, content, old) = match job {
            Job::Save(record) => (Some(record.definition.name.clone()), Content::Record(record), None),
            Job::SavePools(all) => (None, Content::Pools(all), None),
            Job::Rename(old, record) => {
                (Some(record.definition.name.clone()), Content::Record(record), Some(old))
            }
            Job::Forget(vm) => (Some(vm), Content::Nothing, None),
        };
        let mut former: BTreeSet<VmName> = old.clone().into_iter().collect();
        let (mut removed, mut replaces) = (BTreeSet::new(), false);
        let known_as = old.map(Some).into_iter().chain([subject.clone()]);
        for failed in known_as.filter_map(|subject| self.0.remove(&subject)) {
            replaces = true;
            removed.extend(failed.removed);
            match failed.content {
                Content::Nothing => removed.extend(failed.former),
                Content::Record(_) | Content::Pools(_) => former.extend(failed.former),
            }
        }
        // The file of this name is not that of another VM any more.
        if let Some(name) = &subject {
            former.remove(name);
            removed.remove(name);
            for want in self.0.values_mut() {
                want.former.remove(name);
                want.removed.remove(name);
            }
        }
        (subject.clone(), Want { subject, content, former, removed }, replaces)
    }

    /// Notes that `want` could not be written.
    pub(super) fn keep(&mut self, subject: Subject, want: Want) {
        self.0.insert(subject, want);
    }

    /// Takes all of it out, for another attempt.
    pub(super) fn take_all(&mut self) -> BTreeMap<Subject, Want> {
        std::mem::take(&mut self.0)
    }
}
