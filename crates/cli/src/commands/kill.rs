use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::poll;
use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::exit::{Status, status_of};
use crate::selection::Selection;

/// Longest wait for a killed VM to be gone: the kernel gives its memory back within seconds,
/// however large it was.
const KILL_TIME: Duration = Duration::from_secs(30);

const HELP: &str = "\
Examples:
  plimsoll kill web1
  plimsoll kill web1 web2 --ignore-missing
  plimsoll kill --all";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Kill {
    #[command(flatten)]
    which: Selection,
    /// Pass over VMs that do not exist or are off
    #[arg(long)]
    ignore_missing: bool,
}

impl Kill {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.which.vms(context, |vm| vm.power != Power::Off)?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            let outcome = kill(name, context);
            if self.ignore_missing && outcome.as_ref().is_err_and(|e| is_missing(name, e, context)) {
                continue;
            }
            batch.tell(outcome, ended)?;
        }
        batch.end()
    }
}

/// Whether a VM could not be ended because it does not exist, or is off.
pub(super) fn is_missing(name: &VmName, error: &anyhow::Error, context: &Context) -> bool {
    match status_of(error) {
        Status::Unknown => true,
        Status::Conflict => context.client.vm(name).is_ok_and(|vm| vm.power == Power::Off),
        _ => false,
    }
}

/// Kills a VM and waits until it is off.
pub(super) fn kill(name: &VmName, context: &Context) -> Result<VmStatus> {
    let vm = context.client.act(name, Act::Kill)?;
    if vm.power == Power::Off {
        return Ok(vm);
    }
    let deadline = Some(Instant::now() + KILL_TIME);
    match poll::until(context, name, "killing", deadline, |vm| vm.power == Power::Off)? {
        Some(vm) => Ok(vm),
        None => {
            let pid = vm.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            bail!("{name}{pid} has not ended {} s after it was killed: see dmesg", KILL_TIME.as_secs())
        }
    }
}

/// How a VM's last run ended.
pub(super) fn ended(vm: &VmStatus) -> String {
    match &vm.exit {
        Some(exit) => format!("{} is off: {exit}", vm.name),
        None => format!("{} is off", vm.name),
    }
}
