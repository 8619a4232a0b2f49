use std::time::Duration;

use anyhow::{Result, bail};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::wait;
use crate::client::Act;
use crate::context::Context;

/// Longest wait for a killed VM to be gone: the kernel gives its memory back within seconds,
/// however large it was.
const KILL_TIME: Duration = Duration::from_secs(30);

pub(crate) fn run(name: &VmName, context: &Context) -> Result<()> {
    let vm = kill(name, context)?;
    context.output.facts(&vm, ended)
}

/// Kills a VM and waits until it is off.
pub(super) fn kill(name: &VmName, context: &Context) -> Result<VmStatus> {
    let vm = context.client.act(name, Act::Kill)?;
    if vm.power == Power::Off {
        return Ok(vm);
    }
    match wait::until(context, name, "killing", KILL_TIME, |vm| vm.power == Power::Off)? {
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
