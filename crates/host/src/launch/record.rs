use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use plimsoll_protocol::VmName;
use plimsoll_protocol::definition::{JailPart, VmDefinition};
use plimsoll_protocol::sharing::DomainId;
use plimsoll_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use crate::domains::Known;
use crate::format;
use crate::paths::{GRANT_RECORD, RUN_RECORD};

/// The record of a VM that runs, for a restarted daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) pid: u32,
    /// See [`crate::process::start_time`].
    pub(crate) start_time: u64,
    /// See [`crate::process::boot_id`].
    pub(crate) boot_id: String,
    pub(crate) uid: Option<u32>,
    /// The context identifier of its vsock, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cid: Option<u32>,
    pub(crate) started: Timestamp,
    pub(crate) definition: VmDefinition,
    pub(crate) missing_jail: Vec<JailPart>,
    /// Its swap space.
    #[serde(default)]
    pub(crate) swap: Pages,
    /// Domains whose frames its VMM may map: the one that it was told of last, and the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<Known>,
    /// Domains before those, which it can still read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former: Vec<Known>,
    /// What the kernel lets it use beside its grant. `None`: it holds the VM to no bound, or a
    /// daemon of an earlier version wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Bytes>,
    /// What its operator should know of how it runs, each in one line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
}

impl RunRecord {
    /// The VMM is about to be told of a domain. Of those before it the domains `gone` have no
    /// frames any more that it could read.
    pub(crate) fn joins(&mut self, domain: Known, gone: &[DomainId]) {
        self.former.retain(|known| !gone.contains(&known.id));
        self.domains.retain(|known| known.id != domain.id);
        self.former.retain(|known| known.id != domain.id);
        // It does not join a third one before it has given back all frames of the first.
        let before = self.domains.pop();
        self.former.extend(self.domains.drain(..).filter(|known| known.name.is_some()));
        self.domains = before.into_iter().chain([domain]).collect();
    }
}

/// Reads the run record in `directory`.
///
/// # Errors
/// It cannot be read in full, or is the record of another VM. [`crate::outline`] reads a part of
/// it.
pub(crate) fn read_record(directory: &Path, vm: &VmName) -> anyhow::Result<RunRecord> {
    let path = directory.join(RUN_RECORD);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let record: RunRecord =
        format::parse(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    ensure!(
        record.definition.name == *vm,
        "{} is the record of another VM, {}",
        path.display(),
        record.definition.name
    );
    record.definition.check().with_context(|| path.display().to_string())?;
    Ok(record)
}

/// What a VM was granted, as written down last in `directory`; `None`: unknown.
pub(crate) fn read_grant(directory: &Path) -> Option<Pages> {
    let mut bytes = [0; 8];
    File::open(directory.join(GRANT_RECORD)).ok()?.read_exact_at(&mut bytes, 0).ok()?;
    Some(Pages(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl RunRecord {
        /// The record of a VM of 16384 pages that may map frames of `domains`.
        pub(crate) fn example(domains: Vec<Known>) -> Self {
            let text = "name = 'a'\nsize = '64MiB'\n[boot]\nmodel = true\n";
            Self {
                pid: 7,
                start_time: 1,
                boot_id: "this boot".to_owned(),
                uid: None,
                cid: None,
                started: Timestamp::UNIX_EPOCH,
                definition: VmDefinition::from_toml(text, Path::new("/")).unwrap(),
                missing_jail: Vec::new(),
                swap: Pages::ZERO,
                domains,
                former: Vec::new(),
                beside: None,
                remarks: Vec::new(),
            }
        }
    }

    #[test]
    fn domains_that_are_gone_are_forgotten_and_no_others() {
        let mut record = RunRecord::example(Vec::new());
        let domain = |n| Known { id: DomainId(n), name: Some("red".parse().unwrap()) };
        (0..10).for_each(|n| record.joins(domain(n), &[]));
        assert_eq!((record.domains.len(), record.former.len()), (2, 8));
        for n in 10..100 {
            let gone: Vec<DomainId> =
                record.former.iter().map(|known| known.id).filter(|id| id.0 > 3).collect();
            record.joins(domain(n), &gone);
        }
        let former: Vec<u64> = record.former.iter().map(|known| known.id.0).collect();
        assert_eq!(former, [0, 1, 2, 3, 97]);
    }
}
