//! The daemon's account beside the kernel's.

use std::time::Duration;

use anyhow::{Context, Result};
use plimsoll_protocol::status::Power;
use plimsoll_units::Bytes;

use crate::smaps;
use crate::stage::Stage;

/// Pages that a running guest touches between two looks at it.
const SLACK: Bytes = Bytes::mib(4);
/// Buffers of a VMM for pages that are being swapped: 256 to be written and 128 to be read.
const BUFFERS: Bytes = Bytes(384 << 12);

/// Waits until the daemon's account is the kernel's. Guests may run, but should do little.
pub fn wait_for_agreement(stage: &Stage, limit: Duration) -> Result<()> {
    let mut last = None;
    let settled = stage.wait("the ledger is what the kernel reports", limit, |stage| {
        last = difference(stage, SLACK)?;
        Ok(last.is_none().then_some(()))
    });
    settled.with_context(|| last.unwrap_or_default())
}

/// What differs between the daemon's account and the kernel's; `None` when they agree. A VM may
/// have up to `slack` more than the daemon knows of: what its guest touched since it reported.
pub fn difference(stage: &Stage, slack: Bytes) -> Result<Option<String>> {
    let (host, vms) = (stage.host()?, stage.vms()?);
    if host.granted + host.overhead + host.frames + host.free != host.budget {
        return Ok(Some("granted, overhead, frames and free are not the budget".to_owned()));
    }
    let granted: Bytes = vms.iter().map(|vm| vm.grant).sum();
    if granted != host.granted {
        return Ok(Some(format!("the host granted {}, its VMs have {granted}", host.granted)));
    }
    for vm in vms.into_iter().filter(|vm| vm.power != Power::Off) {
        let pid = vm.pid.context("a VM that is on has no process")?;
        let kernel = smaps::account(pid, vm.size)?.with_context(|| format!("process {pid} is gone"))?.guest;
        // What is compressed, and buffers, may lie beside guest memory, where the kernel's account
        // cannot tell them apart.
        let (most, least) = (vm.held, vm.held.saturating_sub(vm.paging.store));
        if kernel > vm.grant + BUFFERS || kernel > most + slack || kernel + SLACK < least {
            return Ok(Some(format!(
                "{}: grant {}, held {least} to {most}, kernel {kernel}",
                vm.name, vm.grant
            )));
        }
    }
    Ok(None)
}
