//! `plimsoll pause`: has VMs stand still.

use anyhow::Result;
use plimsoll_protocol::status::{Power, VmStatus};

use super::act::act;
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
        let runs = |vm: &VmStatus| matches!(vm.power, Power::On | Power::Stopping);
        act(&self.which, Act::Pause, runs, "is paused", context)
    }
}
