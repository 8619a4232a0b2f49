use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::{kill, poll};
use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::interval::Interval;
use crate::selection::Selection;

const HELP: &str = "\
A guest obeys its power button only when its init system does (systemd, acpid or busybox do). A guest that has not booted yet, or hangs, does not. Of several VMs all buttons are pressed before any is waited for; with --all and --label those of the highest start order stop first, and the next when they are off.

Examples:
  plimsoll stop web1
  plimsoll stop web1 db --timeout 5m
  plimsoll stop web1 --timeout 30s --kill   never leaves it on
  plimsoll stop --all
  plimsoll stop --label tier=web";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Stop {
    #[command(flatten)]
    which: Selection,
    /// Pass over VMs that do not exist or are off
    #[arg(long)]
    ignore_missing: bool,
    #[command(flatten)]
    manner: Manner,
    /// Wait until they are off: the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the power buttons are pressed
    #[arg(long, overrides_with = "wait", conflicts_with_all = ["timeout", "kill"])]
    no_wait: bool,
}

/// How a VM is shut down.
#[derive(Debug, clap::Args)]
pub(super) struct Manner {
    /// How long to wait until it is off
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Interval,
    /// End it at once where it is not off by then
    #[arg(long)]
    kill: bool,
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let mut batch = Batch::new(context, self.which.is_plural());
        for group in self.which.groups(context, |vm| vm.power != Power::Off)? {
            self.stop(&group, context, &mut batch)?;
        }
        batch.end()
    }

    fn stop(&self, vms: &[VmName], context: &Context, batch: &mut Batch<'_>) -> Result<()> {
        let begun: Vec<_> = vms.iter().map(|name| (name, self.manner.begin(name, context))).collect();
        for (name, begun) in begun {
            if self.ignore_missing && begun.as_ref().is_err_and(|e| kill::is_missing(name, e, context)) {
                continue;
            }
            let outcome = match begun {
                Ok(begun) if self.no_wait && !self.wait => Ok(begun.vm),
                begun => begun.and_then(|begun| self.manner.end(begun, context)),
            };
            batch.tell(outcome, told)?;
        }
        Ok(())
    }
}

fn told(vm: &VmStatus) -> String {
    if vm.power == Power::Off { kill::ended(vm) } else { format!("{} is asked to shut down", vm.name) }
}

/// A VM that is shutting down.
pub(super) struct Begun {
    vm: VmStatus,
    deadline: Instant,
}

impl Manner {
    /// Presses a VM's power button.
    pub(super) fn begin(&self, name: &VmName, context: &Context) -> Result<Begun> {
        let deadline = Instant::now() + self.timeout.0;
        let vm = match context.client.act(name, Act::Stop) {
            // There is no power button yet, or the VMM is unreachable. Kill the VM all the same.
            Err(_) if self.kill && context.client.vm(name)?.power != Power::Off => kill::kill(name, context)?,
            pressed => pressed?,
        };
        Ok(Begun { vm, deadline })
    }

    /// Waits until the VM is off.
    pub(super) fn end(&self, begun: Begun, context: &Context) -> Result<VmStatus> {
        let Begun { vm, deadline } = begun;
        let name = &vm.name;
        if vm.power == Power::Off {
            return Ok(vm);
        }
        // Without time to wait for, nothing is asked.
        let off = match self.timeout.0 {
            Duration::ZERO => None,
            _ => poll::until(context, name, "stopping", Some(deadline), |vm| vm.power == Power::Off)?,
        };
        match off {
            Some(vm) => Ok(vm),
            None if self.kill => kill::kill(name, context),
            None => Err(anyhow!(
                "{name} is still on after {}: its guest ignores the power button; \
                 see plimsoll console {name}, or end it with plimsoll kill {name}",
                self.timeout
            )),
        }
    }
}
