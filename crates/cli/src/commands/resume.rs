//! `plimsoll resume`: has paused VMs go on.

use anyhow::Result;
use plimsoll_protocol::status::Power;

use super::act::act;
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
        act(&self.which, Act::Resume, |vm| vm.power == Power::Paused, "goes on", context)
    }
}
