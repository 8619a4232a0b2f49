use std::str::FromStr;

use anyhow::Result;
use plimsoll_protocol::VmName;
use plimsoll_protocol::api::{VmChange, VmStatus};
use plimsoll_protocol::definition::Shares;
use plimsoll_units::Bytes;

use super::Context;

const HELP: &str = "\
When memory is short, what is above all reservations is divided by shares, and idle memory counts for less. A
raised reservation must fit what the host has not reserved for others; the answer says by how much it does not.

Examples:
  plimsoll set web1 --shares high
  plimsoll set web1 --reservation 512MiB --limit 1GiB
  plimsoll set web1 --limit none --shares 4000";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Set {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// Weight when memory is short: low, normal, high (5, 10, 20 per MiB of size), or a number
    #[arg(long, value_name = "SHARES", group = "change")]
    shares: Option<Shares>,
    /// Machine memory that it always has
    #[arg(long, value_name = "SIZE", group = "change")]
    reservation: Option<Bytes>,
    /// Machine memory that it never exceeds; "none": its size
    #[arg(long, value_name = "SIZE", group = "change")]
    limit: Option<Limit>,
}

/// A limit as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    None,
    At(Bytes),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            size => size.parse().map(Self::At).map_err(|e| format!("{e}, or none")),
        }
    }
}

impl Set {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        let limit = match self.limit {
            // A limit at the size is none: no VM holds more than its size.
            Some(Limit::None) => Some(context.client.vm(&self.name)?.size),
            Some(Limit::At(limit)) => Some(limit),
            None => None,
        };
        let change = VmChange { shares: self.shares, reservation: self.reservation, limit };
        let vm = context.client.change(&self.name, &change)?;
        context.output.facts(&vm, changed)
    }
}

fn changed(vm: &VmStatus) -> String {
    let VmStatus { name, shares, share_count, reservation, limit, target, .. } = vm;
    format!(
        "{name}: shares {shares} ({share_count}), reservation {reservation}, limit {limit}, target {target}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::samples;

    #[test]
    fn a_limit_is_a_size_or_none() {
        assert_eq!("none".parse(), Ok(Limit::None));
        assert_eq!("1GiB".parse(), Ok(Limit::At(Bytes::mib(1024))));
        assert!("nothing".parse::<Limit>().unwrap_err().ends_with("or none"));
    }

    #[test]
    fn the_answer_shows_what_holds_now() {
        assert_eq!(
            changed(&samples::vm("a")),
            "a: shares normal (2560), reservation 64MiB, limit 256MiB, target 160MiB"
        );
    }
}
