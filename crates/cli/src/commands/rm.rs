use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::Power;
use serde::Serialize;

use crate::batch::Batch;
use crate::context::Context;
use crate::exit::{Status, status_of};
use crate::selection::Selection;

const HELP: &str = "\
Examples:
  plimsoll rm web1
  plimsoll rm web1 web2 --ignore-missing
  plimsoll rm --all                         all that are off";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Rm {
    #[command(flatten)]
    which: Selection,
    /// Pass over VMs that do not exist
    #[arg(long)]
    ignore_missing: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a VmName,
}

impl Rm {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vms = self.which.vms(context, |vm| vm.power == Power::Off)?;
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in &vms {
            let outcome = context.client.remove(name);
            let missing = outcome.as_ref().is_err_and(|e| status_of(e) == Status::Unknown);
            if self.ignore_missing && missing {
                continue;
            }
            let outcome = outcome.map(|()| Removed { removed: name });
            batch.tell(outcome, |r| format!("{} is removed; its disks stay", r.removed))?;
        }
        batch.end()
    }
}
