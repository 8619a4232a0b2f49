//! Whether the VM of a run directory is gone.
//!
//! A run directory is all that a daemon has of a VM that an earlier one started: without it the VM
//! cannot be reached any more. So a VM counts as gone only where the kernel says so:
//!
//! | what is seen | the VM is |
//! |---|---|
//! | the machine was booted since | gone |
//! | the kernel knows no process of that number, or one with another start time | gone |
//! | the record names no process, and no process listens at the control socket | gone |
//! | anything else, every error among it | there |

use std::path::Path;

use plimsoll_protocol::VmName;
use plimsoll_units::{Bytes, Pages};

use super::record::{RunRecord, read_grant, read_record};
use super::socket::is_deserted;
use crate::core::KernelAccount;
use crate::descriptors;
use crate::kernel_account;
use crate::outline::{Identity, Outline};
use crate::paths::RUN_RECORD;
use crate::process::{NotFound, Process, boot_id, must_run};

/// The result of a look at a run directory.
#[derive(Debug)]
pub(crate) enum Look {
    Gone(Gone),
    There(Box<There>),
}

/// The proof that a VM is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The machine was booted since the VM was started.
    OtherBoot,
    /// The VM's process has ended, and how that is known.
    Process(String),
}

/// A VM whose process runs, as far as can be told.
#[derive(Debug)]
pub(crate) struct There {
    pub(crate) outline: Outline,
    /// The run record in full; `Err`: why it cannot be read.
    pub(crate) record: Result<RunRecord, String>,
    /// `Err`: which process it is cannot be found out, and why.
    pub(crate) process: Result<Process, String>,
    /// The grant that was written down last; `None`: unknown.
    pub(crate) recorded: Option<Pages>,
    /// What the kernel shows of the process; zeros where the process is not known.
    pub(crate) kernel: KernelAccount,
}

/// Looks at the run directory of `vm` at `path`. Changes nothing.
pub(crate) fn look(vm: &VmName, path: &Path) -> Look {
    let text = std::fs::read(path.join(RUN_RECORD));
    let outline = text.as_deref().map_or_else(|_| Outline::default(), |text| Outline::read(vm, text));
    let process = match &outline.identity {
        Some(identity) => {
            let here = boot_id();
            if let (Some(then), Ok(here)) = (&identity.boot_id, &here)
                && then != here
            {
                return Look::Gone(Gone::OtherBoot);
            }
            open(identity)
        }
        None => {
            let why = match text {
                Ok(_) => format!("{RUN_RECORD} names no process"),
                Err(e) => format!("cannot read {RUN_RECORD}: {e}"),
            };
            // A process that listens keeps the name, even if it is not known which one.
            if is_deserted(path) { Err(NotFound::Gone(why)) } else { Err(NotFound::Unknown(why)) }
        }
    };
    let process = match process {
        Ok(process) => Ok(process),
        Err(NotFound::Gone(how)) => return Look::Gone(Gone::Process(how)),
        Err(NotFound::Unknown(why)) => Err(why),
    };
    let kernel = process.as_ref().map(|process| kernel_account::read(process, (0, Bytes::ZERO)));
    let kernel = kernel.unwrap_or_default();
    let record = read_record(path, vm).map_err(|e| format!("{e:#}"));
    Look::There(Box::new(There { outline, record, process, recorded: read_grant(path), kernel }))
}

fn open(identity: &Identity) -> Result<Process, NotFound> {
    must_run(identity.pid, identity.start_time)?;
    descriptors::check().map_err(|e| NotFound::Unknown(format!("{e:#}")))?;
    Process::find(identity.pid, identity.start_time)
}

/// The process that the record in the run directory of `vm` names, even where few descriptors are
/// left.
pub(crate) fn identify(vm: &VmName, path: &Path) -> Option<Process> {
    let text = std::fs::read(path.join(RUN_RECORD)).ok()?;
    let Identity { pid, start_time, .. } = Outline::read(vm, &text).identity?;
    Process::find(pid, start_time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forks::apart;

    fn look_at(record: Option<&str>) -> Look {
        let directory = tempfile::tempdir().unwrap();
        if let Some(record) = record {
            std::fs::write(directory.path().join(RUN_RECORD), record).unwrap();
        }
        look(&"a".parse().unwrap(), directory.path())
    }

    #[test]
    fn only_another_boot_another_process_or_none_means_gone() {
        let _apart = apart();
        let (pid, boot) = (std::process::id(), boot_id().unwrap());
        let start = crate::process::start_time(pid).unwrap();
        let record = |pid: u32, start: u64, boot: &str| {
            format!(r#"{{"pid": {pid}, "start_time": {start}, "boot_id": "{boot}", "version": 99}}"#)
        };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = child.id();
        child.wait().unwrap();
        assert!(
            matches!(look_at(Some(&record(pid, start, &boot))), Look::There(there) if there.kernel.process.anonymous > Bytes::ZERO)
        );
        assert!(matches!(look_at(Some(&record(pid, start, "other"))), Look::Gone(Gone::OtherBoot)));
        for gone in [record(pid, start + 1, &boot), record(ended, start, &boot)] {
            assert!(matches!(look_at(Some(&gone)), Look::Gone(Gone::Process(_))), "{gone}");
        }
        // A record without a boot is that of a process all the same.
        let part = format!("{{\n  \"pid\": {pid},\n  \"start_time\": {start},\n  \"boot_id\": \"");
        assert!(matches!(look_at(Some(&part)), Look::There(_)));
        assert!(matches!(look_at(Some("{")), Look::Gone(_)), "nobody listens");
        assert!(matches!(look_at(None), Look::Gone(_)), "nobody listens");
    }
}
