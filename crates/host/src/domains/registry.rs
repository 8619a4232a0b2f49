use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use plimsoll_protocol::DomainName;
use plimsoll_protocol::sharing::DomainId;
use plimsoll_sharing::{Domain, MemberId, MemberStats};
use plimsoll_units::Pages;
use serde::{Deserialize, Serialize};

use super::report::DomainState;
use crate::run_id::RunId;

/// The owner of a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// One VM, as long as it runs.
    Run(RunId),
    /// All VMs that name it.
    Named(DomainName),
}

/// A domain and its owner.
#[derive(Debug)]
pub(super) struct Owned {
    owner: Owner,
    pub(super) domain: Domain,
    /// Another domain has taken its place: no VM joins this one any more.
    retired: bool,
}

/// A domain as the run directory of a member names it, for a daemon that comes after this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: DomainId,
    /// `None`: it is the VM's own.
    pub(crate) name: Option<DomainName>,
}

/// All domains that have a member.
///
/// A VM that leaves a named domain while it runs keeps a descriptor of its frames, which cannot be
/// taken from a process. So the domain is *closed*: no content comes into its frames any more. If
/// that VM ends before another VM has joined the domain by its name, it is opened again. Otherwise
/// a new domain has its name by then, and the others move there.
#[derive(Debug, Default)]
pub(super) struct Domains {
    all: BTreeMap<DomainId, Owned>,
    /// VMs that can still read the frames of domains that they have left. An entry may come before
    /// its domain is recovered.
    former: BTreeSet<(DomainId, RunId)>,
    /// Domains that may have changed since the last report.
    changed: BTreeSet<DomainId>,
}

/// A VM as member of its domain. Runs are counted from 1 in each life of the daemon, which starts
/// fewer than 2^32.
pub(super) fn member(run: RunId) -> MemberId {
    MemberId(u32::try_from(run.0).unwrap_or(u32::MAX))
}

/// The VM that is this member.
pub(super) fn run(member: MemberId) -> RunId {
    RunId(member.0.into())
}

impl Domains {
    /// Adds `run` to the domain of `owner`. A new domain gets room for `limit` frames.
    ///
    /// # Errors
    /// The kernel has no file or no memory for it, or the VM is too large.
    pub(super) fn join(
        &mut self,
        owner: Owner,
        run: RunId,
        size: Pages,
        limit: Pages,
    ) -> anyhow::Result<DomainId> {
        let usable = |(id, owned): &(&DomainId, &Owned)| {
            owned.owner == owner && !owned.retired && self.former_of(**id).all(|former| former == run)
        };
        let there = self.all.iter().find(usable).map(|(id, _)| *id);
        let id = match there {
            Some(id) => id,
            None => {
                let domain = Domain::new(limit)?;
                let id = id(&domain)?;
                self.all.insert(id, Owned { owner: owner.clone(), domain, retired: false });
                id
            }
        };
        let joined = self.get_mut(id).map(|domain| domain.join(member(run), size));
        self.drop_empty(id);
        joined.transpose()?;
        let others = self.all.iter_mut().filter(|(other, owned)| **other != id && owned.owner == owner);
        others.for_each(|(other, owned)| {
            owned.retired = true;
            owned.domain.close();
            self.changed.insert(*other);
        });
        self.former.remove(&(id, run));
        self.open_or_close(id);
        Ok(id)
    }

    /// `run` has left a domain, and goes on running.
    pub(super) fn left(&mut self, id: DomainId, run: RunId) {
        self.former.insert((id, run));
        self.open_or_close(id);
    }

    /// `run` has ended: it can read no frames any more.
    pub(super) fn ended(&mut self, run: RunId) {
        let could_read: Vec<DomainId> =
            self.former.iter().filter(|(_, former)| *former == run).map(|(id, _)| *id).collect();
        for id in could_read {
            self.former.remove(&(id, run));
            self.open_or_close(id);
        }
    }

    /// Whether no content comes into the frames of a domain any more.
    pub(super) fn is_closed(&self, id: DomainId) -> bool {
        self.all.get(&id).is_some_and(|owned| owned.retired) || self.former_of(id).next().is_some()
    }

    fn former_of(&self, id: DomainId) -> impl Iterator<Item = RunId> {
        self.former.range((id, RunId(0))..=(id, RunId(u64::MAX))).map(|(_, run)| *run)
    }

    fn open_or_close(&mut self, id: DomainId) {
        let closed = self.is_closed(id);
        match self.get_mut(id) {
            Some(domain) if closed => domain.close(),
            Some(domain) => domain.open(),
            None => {}
        }
    }

    /// Adds `run` to the domain of an earlier daemon, whose frames are in `pool`.
    ///
    /// # Errors
    /// `pool` is not a file of frames, or not the one of that number; or the VM is too large.
    pub(super) fn recover(
        &mut self,
        id: DomainId,
        owner: Owner,
        pool: &OwnedFd,
        run: RunId,
        size: Pages,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(inode(pool)? == id, "the VM brought a file that is not its domain's");
        if let Some(there) = self.all.get(&id) {
            anyhow::ensure!(there.owner == owner, "its domain belongs to another owner");
        } else {
            let mut retired = false;
            // A new domain may have taken its name meanwhile. The members of one of them move to
            // the other.
            for (other_id, other) in
                self.all.iter_mut().filter(|(_, other)| other.owner == owner && !other.retired)
            {
                if other.domain.stats().frames == Pages::ZERO {
                    other.retired = true;
                    other.domain.close();
                    self.changed.insert(*other_id);
                } else {
                    retired = true;
                }
            }
            self.all.insert(id, Owned { owner, domain: Domain::recover(pool)?, retired });
            self.open_or_close(id);
        }
        let joined = self.get_mut(id).map(|domain| domain.join(member(run), size));
        Ok(joined.transpose().map(drop)?)
    }

    /// Returns the owner of a domain.
    pub(super) fn owner(&self, id: DomainId) -> Option<&Owner> {
        self.all.get(&id).map(|owned| &owned.owner)
    }

    /// A domain as the run directory of a member names it.
    pub(super) fn known(&self, id: DomainId) -> Option<Known> {
        let name = match self.owner(id)? {
            Owner::Named(name) => Some(name.clone()),
            Owner::Run(_) => None,
        };
        Some(Known { id, name })
    }

    /// A domain.
    pub(super) fn get(&self, id: DomainId) -> Option<&Domain> {
        self.all.get(&id).map(|owned| &owned.domain)
    }

    /// A domain, to work with it.
    pub(super) fn get_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        self.changed.insert(id);
        self.all.get_mut(&id).map(|owned| &mut owned.domain)
    }

    /// All domains, in the order of their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (DomainId, &Owned)> {
        self.all.iter().map(|(id, owned)| (*id, owned))
    }

    /// A VM's part of a domain; zeros if it is no member.
    pub(super) fn of(&self, id: DomainId, run: RunId) -> MemberStats {
        self.get(id).and_then(|domain| domain.member(member(run))).unwrap_or_default()
    }

    /// Drops a domain without members and frames. A domain with frames stays, and gives them back
    /// one by one: a process that was a member might still map the file.
    pub(super) fn drop_empty(&mut self, id: DomainId) {
        let empty =
            |domain: &Domain| domain.members().next().is_none() && domain.stats().frames == Pages::ZERO;
        if self.get(id).is_some_and(empty) {
            self.all.remove(&id);
            self.changed.insert(id);
            self.former.retain(|(former, _)| *former != id);
        }
    }

    /// Frames of a domain that take machine memory.
    pub(super) fn frames_of(&self, id: DomainId) -> Pages {
        self.get(id).map_or(Pages::ZERO, |domain| domain.stats().frames)
    }

    /// Domains that may have changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeSet<DomainId> {
        std::mem::take(&mut self.changed)
    }

    /// What a domain is and has; `None`: it is gone.
    pub(super) fn state(&self, id: DomainId) -> Option<DomainState> {
        let owned = self.all.get(&id)?;
        let name = match &owned.owner {
            Owner::Named(name) => Some(name.clone()),
            Owner::Run(_) => None,
        };
        Some(DomainState { name, closed: self.is_closed(id), stats: owned.domain.stats() })
    }

    /// Frames of all domains that take machine memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn frames(&self) -> Pages {
        self.all.keys().map(|id| self.frames_of(*id)).sum()
    }
}

/// The number of a domain: the inode of the file of its frames, which is the same for every
/// descriptor.
fn id(domain: &Domain) -> io::Result<DomainId> {
    inode(&domain.pool()?)
}

/// The number of the domain whose frames are in `file`, if it is one of frames.
pub(super) fn inode(file: &OwnedFd) -> io::Result<DomainId> {
    Ok(DomainId(rustix::fs::fstat(file)?.st_ino))
}
