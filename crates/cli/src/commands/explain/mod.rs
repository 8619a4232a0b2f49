//! `plimsoll explain`: the daemon's explanations in words.

mod grant;
mod host;
mod remedy;
mod vm;

#[cfg(test)]
mod tests;

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::explain::Cause;
use plimsoll_units::Bytes;

use crate::context::Context;

const HELP: &str = "\
Memory is divided among the VMs and pools of each pool by their shares, between reservation and limit, and idle memory costs more than active memory by the tax: min-funding revocation, as in ESX. At rest all VMs and pools that no bound holds pay the same price per share, the level. A VM can always have what it is entitled to; what it holds beyond that is reclaimed when the host is short of free memory, idle memory first.

All numbers are of one moment, and of the ledger at that moment. Each remedy is tried alone.

Examples:
  plimsoll explain            the host's account, its pools, and who holds the memory
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
            Some(name) => context.output.facts(&context.client.explain_vm(name)?, vm::text),
            None => context.output.facts(&context.client.explain()?, host::text),
        }
    }
}

/// What set an entitlement, in a few words that follow "by".
fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Reservation => "its reservation, above what its shares are worth".to_owned(),
        Cause::Limit => "its limit".to_owned(),
        Cause::Size => "its size".to_owned(),
        Cause::PoolReservation(pool) => format!("the reservation of pool {pool}"),
        Cause::PoolLimit(pool) => format!("the limit of pool {pool}"),
        Cause::Level => "its shares".to_owned(),
        Cause::Shortfall(place) => format!("too much is reserved in {place}: reservations are scaled down"),
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

/// The text for an amount above zero, or nothing.
fn more_than_nothing(bytes: Bytes, text: impl FnOnce(Bytes) -> String) -> String {
    if bytes == Bytes::ZERO { String::new() } else { text(bytes) }
}
