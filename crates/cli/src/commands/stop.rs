use std::time::Duration;

use anyhow::{Result, bail};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::{kill, wait};
use crate::client::Act;
use crate::context::Context;
use crate::interval::Interval;

const HELP: &str = "\
A guest obeys its power button only when its init system does (systemd, acpid or busybox do). A guest
that has not booted yet, or hangs, does not.

Examples:
  plimsoll stop web1
  plimsoll stop web1 --timeout 5m
  plimsoll stop web1 --timeout 30s --kill   never leaves it on";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Stop {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// How long to wait until it is off
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Interval,
    /// End it at once where it is not off by then
    #[arg(long)]
    kill: bool,
}

impl Stop {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = &self.name;
        let pressed = context.client.act(name, Act::Stop);
        if self.kill && pressed.is_err() && context.client.vm(name)?.power != Power::Off {
            // There is no power button yet, or the VMM is unreachable. Kill the VM all the same.
            return context.output.facts(&kill::kill(name, context)?, kill::ended);
        }
        pressed?;
        let vm = match self.wait(context)? {
            Some(vm) => vm,
            None if self.kill => kill::kill(name, context)?,
            None => bail!(
                "{name} is still on after {}: its guest ignores the power button; \
                 see plimsoll console {name}, or end it with plimsoll kill {name}",
                self.timeout
            ),
        };
        context.output.facts(&vm, kill::ended)
    }

    fn wait(&self, context: &Context) -> Result<Option<VmStatus>> {
        // The button is pressed; without time to wait for, nothing is asked.
        if self.timeout.0 == Duration::ZERO {
            return Ok(None);
        }
        wait::until(context, &self.name, "stopping", self.timeout.0, |vm| vm.power == Power::Off)
    }
}
