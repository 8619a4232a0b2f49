//! `plimsoll share`: shows sharing domains, and puts VMs into them.

use anyhow::Result;
use clap::Subcommand;
use plimsoll_protocol::VmName;
use plimsoll_protocol::change::VmChange;
use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::{DomainStatus, VmStatus};
use plimsoll_words::sharing;
use plimsoll_words::table::{Column, Table};

use crate::context::Context;

const HELP: &str = "\
Pages of the same content are kept once for all VMs of a sharing domain. A VM can find out which pages other VMs of its domain have, by how long a write takes: put only VMs together that may know that of each other.
  own    the VM alone: its own pages of the same content (the default)
  zero   zero pages only: they cost nothing
  off    nothing is shared, and nothing is scanned
  NAME   all VMs that name this domain, in [memory] sharing of their definitions or here

A VM that leaves a domain may go on reading what was shared there, if its guest has broken into its process. So nothing new is shared there: the domain is closed. The other VMs move to a new domain of the same name, each as soon as the host has free memory for all that it shares, because that is the VM's own until it is shared anew. Without free memory they keep what they share. The domain is opened again if the VM that left is shut down before another VM has joined or moved.

Examples:
  plimsoll share ls
  plimsoll share set web1 prod     the VM runs on, and gives back over time what it shared before
  plimsoll share set web1 own";

const LS_HELP: &str = "\
Columns:
  DOMAIN  name of the domain; -: a VM's own
  FRAMES  machine memory that shared pages take
  SHARED  guest memory that reads them
  SAVED   the difference
  HINTS   guest memory that the daemon knows by its digest only
  INDEX   memory of the daemon's own for its bookkeeping
  VMS     the VMs in it
A domain is closed where a VM that still runs has left it: see plimsoll share --help.

Examples:
  plimsoll share ls
  plimsoll share ls --json | jq 'map(.saved) | add'";

/// Page sharing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Share {
    #[command(subcommand)]
    command: Do,
}

#[derive(Debug, Subcommand)]
enum Do {
    /// Show all domains
    #[command(visible_alias = "list", after_help = LS_HELP)]
    Ls,
    /// Put a VM into another sharing domain, while it runs or not
    Set(Set),
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// What it shares pages with: own, zero, off, or the name of a domain
    #[arg(value_name = "DOMAIN")]
    sharing: Sharing,
}

impl Share {
    pub(crate) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Do::Ls => context.output.facts(context.client.domains()?.as_slice(), table),
            Do::Set(Set { name, sharing }) => {
                let change = VmChange { sharing: Some(sharing), ..VmChange::default() };
                context.output.facts(&context.client.change(&name, &change)?, sentence)
            }
        }
    }
}

fn sentence(vm: &VmStatus) -> String {
    format!("{}: {}", vm.name, sharing::text(&vm.sharing))
}

const COLUMNS: [Column; 7] = [
    Column::left("DOMAIN"),
    Column::right("FRAMES"),
    Column::right("SHARED"),
    Column::right("SAVED"),
    Column::right("HINTS"),
    Column::right("INDEX"),
    Column::left("VMS"),
];

fn table(domains: &[DomainStatus]) -> String {
    if domains.is_empty() {
        return "No sharing domains: no VM runs, or all are defined with sharing zero or off".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for domain in domains {
        let vms: Vec<String> = domain.vms.iter().map(ToString::to_string).collect();
        let name = domain.name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        table.row([
            if domain.closed { format!("{name} (closed)") } else { name },
            domain.frames.to_string(),
            domain.shared.to_string(),
            domain.saved.to_string(),
            domain.hints.to_string(),
            domain.index.to_string(),
            vms.join(" "),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn domains_are_a_line_each() {
        let mib = |n: u64| n << 20;
        let domains: Vec<DomainStatus> = serde_json::from_value(json!([
            {"name": "prod", "closed": true, "vms": ["web1", "web2"], "frames": mib(10), "shared": mib(30), "saved": mib(20), "hints": mib(64), "index": mib(1)},
            {"vms": ["db"], "frames": 0, "shared": 0, "saved": 0, "hints": mib(8), "index": 4096}
        ]))
        .unwrap();
        let expected = "\
DOMAIN         FRAMES  SHARED  SAVED  HINTS  INDEX  VMS
prod (closed)   10MiB   30MiB  20MiB  64MiB   1MiB  web1 web2
-                  0B      0B     0B   8MiB   4KiB  db";
        assert_eq!(table(&domains), expected);
        assert!(table(&[]).starts_with("No sharing domains"));
    }

    #[test]
    fn the_answer_shows_with_whom_it_shares_now() {
        let mut vm = samples::vm("a");
        vm.sharing.with = "prod".parse().unwrap();
        assert!(sentence(&vm).starts_with("a: in domain prod; "), "{}", sentence(&vm));
    }
}
