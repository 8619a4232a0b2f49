use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::{kill, poll};
use crate::client::Act;
use crate::context::Context;
use crate::interval::Interval;

/// How long a guest may take to shut down where no time is named.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How a VM is shut down.
#[derive(Debug, clap::Args)]
pub(super) struct Manner {
    /// How long to wait until it is off [default: 60s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Interval>,
    /// End it at once where it is not off by then
    #[arg(long)]
    kill: bool,
}

impl Manner {
    /// The time for VMs of `orders` start orders together.
    pub(super) fn time(&self, orders: usize) -> Interval {
        let all = TIMEOUT.saturating_mul(u32::try_from(orders).unwrap_or(u32::MAX));
        self.timeout.unwrap_or(Interval(all))
    }

    /// Shuts a VM down and waits until it is off.
    pub(super) fn shut_down(&self, name: &VmName, context: &Context) -> Result<VmStatus> {
        let time = self.time(1);
        let deadline = Instant::now() + time.0;
        let vm = self.press(name, context)?;
        if vm.power == Power::Off {
            return Ok(vm);
        }
        match poll::until(context, name, "stopping", Some(deadline), |vm| vm.power == Power::Off)? {
            Some(vm) => Ok(vm),
            None => self.overdue(name, time, context),
        }
    }

    /// Presses a VM's power button.
    pub(super) fn press(&self, name: &VmName, context: &Context) -> Result<VmStatus> {
        match context.client.act(name, Act::Stop) {
            // There is no power button yet, or the VMM is unreachable. Kill the VM all the same.
            Err(_) if self.kill && context.client.vm(name)?.power != Power::Off => kill::kill(name, context),
            pressed => pressed,
        }
    }

    /// Ends a VM that is on when its time is over, if it may be ended.
    pub(super) fn overdue(&self, name: &VmName, time: Interval, context: &Context) -> Result<VmStatus> {
        if self.kill {
            return kill::kill(name, context);
        }
        Err(anyhow!(
            "{name} is still on after {time}: its guest ignores the power button; \
             see plimsoll console {name}, or end it with plimsoll kill {name}"
        ))
    }
}
