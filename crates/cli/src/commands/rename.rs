use anyhow::Result;
use plimsoll_protocol::VmName;

use crate::context::Context;

const HELP: &str = "\
The VM must be off. It keeps its definition, its logs, and the addresses of its network interfaces; its history stays under the old name.

Examples:
  plimsoll rename web1 www";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Rename {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Its new name, which no VM has
    #[arg(value_name = "NAME")]
    new: VmName,
}

impl Rename {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let vm = context.client.rename(&self.name, &self.new)?;
        context.output.facts(&vm, |vm| format!("{} is {} now", self.name, vm.name))
    }
}
