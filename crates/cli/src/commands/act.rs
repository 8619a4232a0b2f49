//! What `pause`, `resume` and `reset` share: one act for each VM, and a line for each.

use anyhow::Result;
use plimsoll_protocol::status::VmStatus;

use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::selection::Selection;

/// Does `act` to the VMs of `which`; without names, to those that `applies` holds for. Prints
/// `done` of each.
pub(super) fn act(
    which: &Selection,
    act: Act,
    applies: impl Fn(&VmStatus) -> bool,
    done: &str,
    context: &Context,
) -> Result<()> {
    let vms = which.vms(context, applies)?;
    let mut batch = Batch::new(context, which.is_plural());
    for name in &vms {
        batch.tell(context.client.act(name, act), |vm| format!("{} {done}", vm.name))?;
    }
    batch.end()
}
