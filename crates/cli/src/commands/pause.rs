//! `plimsoll pause`: has VMs stand still.

use anyhow::Result;
use plimsoll_protocol::status::Power;

use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
A paused VM does nothing, and keeps its memory as far as the host does not page it out. When it is resumed its clock shows the right time, and its watchdogs are told that it was stopped.

Examples:
  plimsoll pause web1
  plimsoll pause --label tier=batch";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Pause {
    #[command(flatten)]
    which: Selection,
}

impl Pause {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.which.vms(context, |vm| matches!(vm.power, Power::On | Power::Stopping))?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            batch.tell(context.client.act(name, Act::Pause), |vm| format!("{} is paused", vm.name))?;
        }
        batch.end()
    }
}
