//! `plimsoll reset`: has guests boot anew, as a reset button does.

use anyhow::Result;
use plimsoll_protocol::status::Power;

use crate::batch::Batch;
use crate::client::Act;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
As a reset button does: what the guest has not written is lost, and it boots anew with the same process and memory. plimsoll restart shuts it down first.

Examples:
  plimsoll reset web1";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Reset {
    #[command(flatten)]
    which: Selection,
}

impl Reset {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.which.vms(context, |vm| matches!(vm.power, Power::On | Power::Stopping))?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            batch.tell(context.client.act(name, Act::Reset), |vm| format!("{} is reset", vm.name))?;
        }
        batch.end()
    }
}
