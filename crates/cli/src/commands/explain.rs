//! `plimsoll explain`: the daemon's explanations in words.

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_words::explain;

use crate::context::Context;

const HELP: &str = "\
Memory is divided among the VMs and pools of each pool by their shares, between reservation and limit, and idle memory costs more than active memory by the tax: min-funding revocation, as in ESX. At rest all VMs and pools that no bound holds pay the same price per share, the level. A VM can always have what it is entitled to; what it holds beyond that is reclaimed when the host is short of free memory, idle memory first.

All numbers are of one moment, and of the ledger at that moment. Each remedy is tried alone.

Examples:
  plimsoll explain            the host's account, its pools, and which VMs hold the memory
  plimsoll explain web1       why it has this much, and what would give it more
  plimsoll explain web1 --json | jq -r .decision.cause";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Explain {
    /// Name of the VM; without, the host is explained
    #[arg(value_name = "VM")]
    name: Option<VmName>,
}

impl Explain {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match &self.name {
            Some(name) => context.output.facts(&context.client.explain_vm(name)?, explain::vm),
            None => context.output.facts(&context.client.explain()?, explain::host),
        }
    }
}
