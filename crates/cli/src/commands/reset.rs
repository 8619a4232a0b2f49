//! `plimsoll reset`: has guests boot anew, as a reset button does.

use anyhow::Result;
use plimsoll_protocol::status::{Power, VmStatus};

use super::act::act;
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
        let runs = |vm: &VmStatus| matches!(vm.power, Power::On | Power::Stopping);
        act(&self.which, Act::Reset, runs, "is reset", context)
    }
}
