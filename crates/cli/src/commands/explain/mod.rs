//! `plimsoll explain`: the daemon's explanations in words.

mod host;
mod vm;

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::explain::Cause;
use plimsoll_units::Bytes;

use super::Context;

const HELP: &str = "\
Memory is divided among the VMs and pools of each pool by their shares, between reservation and limit, and idle memory
counts for more than active memory by the tax: min-funding revocation, as in ESX. At rest all that no bound holds
pay the same per share, the level. What a VM is entitled to it may always have; what it holds beyond that is taken
back when the host is short of free memory, idle memory first.

All numbers are of one moment, and of the ledger of that moment. Each remedy is tried alone, all else left as it is.

Examples:
  plimsoll explain            the host's account, its pools, and who holds the memory
  plimsoll explain web1       why has it this much, and what would give it more?
  plimsoll explain web1 --json | jq -r .decision.cause";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Explain {
    /// Name of the VM; without, the host is explained
    #[arg(value_name = "VM")]
    name: Option<VmName>,
}

impl Explain {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        match &self.name {
            Some(name) => context.output.facts(&context.client.explain_vm(name)?, vm::text),
            None => context.output.facts(&context.client.explain()?, host::text),
        }
    }
}

/// What set an entitlement, in a few words.
fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Reservation => "its reservation, above what its shares are worth".to_owned(),
        Cause::Limit => "its limit".to_owned(),
        Cause::Size => "its size".to_owned(),
        Cause::PoolReservation(pool) => format!("the reservation of pool {pool}"),
        Cause::PoolLimit(pool) => format!("the limit of pool {pool}"),
        Cause::Level => "its shares against everybody's".to_owned(),
        Cause::Shortfall(place) => format!("too much is reserved in {place}: what there is is scaled down"),
    }
}

/// A level: what one share pays. Shares are per MiB, so that it is a small amount.
fn level(bytes: f64) -> String {
    if bytes < 10_240.0 {
        format!("{bytes:.1}B a share")
    } else {
        format!("{:.1}KiB a share", bytes / 1024.0)
    }
}

/// `a` of which `b` is more than nothing, or empty.
fn more_than_nothing(bytes: Bytes, text: impl FnOnce(Bytes) -> String) -> String {
    if bytes == Bytes::ZERO { String::new() } else { text(bytes) }
}
