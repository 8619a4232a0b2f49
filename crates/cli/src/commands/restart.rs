//! `plimsoll restart`: shuts VMs down and starts them again, one after the other.

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use super::manner::Manner;
use super::start;
use crate::batch::Batch;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
The guest is asked by its power button, as for plimsoll stop; plimsoll reboot is the same. A VM that is off is started. Of several VMs each is on again before the next is stopped. A VM that does not shut down in time stays on, unless --kill says otherwise.

Examples:
  plimsoll restart web1
  plimsoll restart --label tier=web --timeout 2m --kill";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    manner: Manner,
}

impl Restart {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in self.which.vms(context, |vm| vm.power != Power::Off)? {
            batch.tell(self.restart(&name, context), start::started)?;
        }
        batch.end()
    }

    fn restart(&self, name: &VmName, context: &Context) -> Result<VmStatus> {
        if context.client.vm(name)?.power != Power::Off {
            self.manner.shut_down(name, context)?;
        }
        start::start(name, true, context)
    }
}
