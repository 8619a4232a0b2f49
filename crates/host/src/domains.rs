//! The sharing domains of the host: who shares frames with whom.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use plimsoll_protocol::DomainName;
use plimsoll_protocol::sharing::DomainId;
use plimsoll_sharing::{Domain, MemberId, MemberStats};
use plimsoll_units::Pages;
use serde::{Deserialize, Serialize};

use crate::run_id::RunId;

/// Whose domain it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// One VM's, as long as it runs.
    Run(RunId),
    /// Of all VMs that name it.
    Named(DomainName),
}

/// A domain and whose it is.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) owner: Owner,
    pub(crate) domain: Domain,
}

/// A domain as the run directory of a member names it, for a daemon that comes after this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: DomainId,
    /// `None`: it is the VM's own.
    pub(crate) name: Option<DomainName>,
}

/// All domains that have a member.
#[derive(Debug, Default)]
pub(crate) struct Domains(BTreeMap<DomainId, Owned>);

/// A VM as member of its domain. Runs are counted from 1 in each life of the daemon, which starts fewer than 2^32.
pub(crate) fn member(run: RunId) -> MemberId {
    MemberId(u32::try_from(run.0).unwrap_or(u32::MAX))
}

/// The VM that is this member.
pub(crate) fn run(member: MemberId) -> RunId {
    RunId(member.0.into())
}

impl Domains {
    /// Has `run` take part in the domain of `owner`, which is made with room for `limit` frames where there is none yet.
    ///
    /// # Errors
    /// There is no file or no memory for it, or the VM is too large.
    pub(crate) fn join(
        &mut self,
        owner: Owner,
        run: RunId,
        size: Pages,
        limit: Pages,
    ) -> anyhow::Result<DomainId> {
        let there = self.0.iter().find(|(_, owned)| owned.owner == owner).map(|(id, _)| *id);
        let id = match there {
            Some(id) => id,
            None => {
                let domain = Domain::new(limit)?;
                let id = id(&domain)?;
                self.0.insert(id, Owned { owner, domain });
                id
            }
        };
        let joined = self.get_mut(id).map(|domain| domain.join(member(run), size));
        self.drop_empty(id);
        joined.transpose()?;
        Ok(id)
    }

    /// Has `run` take part in the domain of an earlier daemon whose frames are in `pool`.
    ///
    /// # Errors
    /// It is no file of frames, or not the one of that number; or the VM is too large.
    pub(crate) fn recover(
        &mut self,
        id: DomainId,
        owner: Owner,
        pool: &OwnedFd,
        run: RunId,
        size: Pages,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(inode(pool.try_clone()?)? == id, "the VM brought another file than its own");
        if let Some(there) = self.0.get(&id) {
            anyhow::ensure!(there.owner == owner, "its domain is another's");
        } else {
            self.0.insert(id, Owned { owner, domain: Domain::recover(pool)? });
        }
        let joined = self.get_mut(id).map(|domain| domain.join(member(run), size));
        Ok(joined.transpose().map(drop)?)
    }

    /// Whose a domain is.
    pub(crate) fn owner(&self, id: DomainId) -> Option<&Owner> {
        self.0.get(&id).map(|owned| &owned.owner)
    }

    /// A domain, for who comes after us.
    pub(crate) fn known(&self, id: DomainId) -> Option<Known> {
        let name = match self.owner(id)? {
            Owner::Named(name) => Some(name.clone()),
            Owner::Run(_) => None,
        };
        Some(Known { id, name })
    }

    /// A domain.
    pub(crate) fn get(&self, id: DomainId) -> Option<&Domain> {
        self.0.get(&id).map(|owned| &owned.domain)
    }

    /// A domain, to work with it.
    pub(crate) fn get_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        self.0.get_mut(&id).map(|owned| &mut owned.domain)
    }

    /// All domains, in the order of their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = (DomainId, &Owned)> {
        self.0.iter().map(|(id, owned)| (*id, owned))
    }

    /// What a VM has of a domain; nothing where it takes no part.
    pub(crate) fn of(&self, id: DomainId, run: RunId) -> MemberStats {
        self.get(id).and_then(|domain| domain.member(member(run))).unwrap_or_default()
    }

    /// Drops a domain that nobody takes part in and that has no frames any more. As long as it has some it stays, for them to be given
    /// back one by one: a process that was a member once might still map the file.
    pub(crate) fn drop_empty(&mut self, id: DomainId) {
        let empty =
            |domain: &Domain| domain.members().next().is_none() && domain.stats().frames == Pages::ZERO;
        if self.get(id).is_some_and(empty) {
            self.0.remove(&id);
        }
    }

    /// Frames of a domain that take machine memory.
    pub(crate) fn frames_of(&self, id: DomainId) -> Pages {
        self.get(id).map_or(Pages::ZERO, |domain| domain.stats().frames)
    }

    /// Frames of all domains that take machine memory.
    pub(crate) fn frames(&self) -> Pages {
        self.0.keys().map(|id| self.frames_of(*id)).sum()
    }
}

/// The number of a domain: that of the file of its frames, which is the same for whoever holds a descriptor.
fn id(domain: &Domain) -> io::Result<DomainId> {
    inode(domain.pool()?)
}

fn inode(file: OwnedFd) -> io::Result<DomainId> {
    Ok(DomainId(File::from(file).metadata()?.ino()))
}
