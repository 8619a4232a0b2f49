//! `plimsoll resume`: has paused VMs go on.

use anyhow::Result;
use plimsoll_protocol::status::Power;

use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
Examples:
  plimsoll resume web1
  plimsoll resume --all";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Resume {
    #[command(flatten)]
    which: Selection,
}

impl Resume {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.which.vms(context, |vm| vm.power == Power::Paused)?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            batch.tell(context.client.act(name, Act::Resume), |vm| format!("{} goes on", vm.name))?;
        }
        batch.end()
    }
}
