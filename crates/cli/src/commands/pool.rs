//! `plimsoll pool`: makes, changes, shows and removes resource pools.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use plimsoll_protocol::change::PoolChange;
use plimsoll_protocol::pool::PoolDefinition;
use plimsoll_protocol::status::PoolStatus;
use plimsoll_protocol::{OrNone, Place, PoolName, Shares};
use plimsoll_units::Bytes;
use plimsoll_words::pool as words;
use plimsoll_words::table::{Column, Table};
use serde::Serialize;

use crate::context::Context;

const HELP: &str = "\
A pool holds VMs and other pools. Memory is divided among the VMs and pools of one pool by their shares, so that what happens in one pool takes nothing from another beyond what its shares allow.
  shares        weight among its siblings: low, normal, high (those of a VM of 16GiB) or a number
  reservation   machine memory that its VMs together always have, as far as they can use it
  limit         machine memory that its VMs together never exceed
  expandable    what is reserved within it beyond its own reservation is reserved from its parent (the default); if not, reservations within it are limited to its own

Examples:
  plimsoll pool create prod --shares high --reservation 4GiB
  plimsoll pool create web --parent prod --limit 2GiB
  plimsoll run web1.toml --pool web
  plimsoll set web1 --pool prod          works while the VM runs
  plimsoll pool set web --parent /       moves the pool with all that is in it
  plimsoll pool ls
  plimsoll pool rm web";

/// Resource pools.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct PoolCommand {
    #[command(subcommand)]
    command: Do,
}

#[derive(Debug, Subcommand)]
enum Do {
    /// Make a pool
    #[command(after_help = HELP)]
    Create(Create),
    /// Change a pool's place, shares, reservation or limit; its VMs run on
    #[command(after_help = HELP)]
    Set(Set),
    /// Show all pools as a tree
    #[command(visible_alias = "list", after_help = LS_HELP)]
    Ls,
    /// Remove a pool that holds neither pools nor VMs
    Rm(Rm),
}

const LS_HELP: &str = "\
Columns:
  SHARES    its weight among its siblings
  RESERV    machine memory that its VMs together always have
  LIMIT     machine memory that its VMs together never exceed
  EXPAND    whether reservations within it may expand into its parent's
  USED      reserved within it by VMs that run, and by pools
  ENTITLED  what policy gives its VMs together now
  GRANTED   machine memory that the host has promised them
  VMS       the VMs directly in it

Examples:
  plimsoll pool ls
  plimsoll pool ls --json | jq -r '.[] | select(.vms == []) | .name'";

#[derive(Debug, clap::Args)]
struct Create {
    /// Name of the pool
    #[arg(value_name = "POOL")]
    name: PoolName,
    /// Pool that it is part of; "/": the host itself
    #[arg(long, value_name = "POOL", default_value = "/")]
    parent: Place,
    /// Weight among its siblings: low, normal, high (those of a VM of 16GiB), or a number
    #[arg(long, value_name = "SHARES", default_value = "normal", allow_hyphen_values = true)]
    shares: Shares,
    /// Machine memory that its VMs together always have
    #[arg(long, value_name = "SIZE", default_value = "0", allow_hyphen_values = true)]
    reservation: Bytes,
    /// Machine memory that its VMs together never exceed
    #[arg(long, value_name = "SIZE", default_value = "none", allow_hyphen_values = true)]
    limit: OrNone<Bytes>,
    /// Whether reservations within it may expand into its parent's
    #[arg(long, value_name = "true|false", default_value = "true", action = clap::ArgAction::Set)]
    expandable: bool,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
struct Set {
    /// Name of the pool
    #[arg(value_name = "POOL")]
    name: PoolName,
    /// Pool that it is to be part of; "/": the host itself
    #[arg(long, value_name = "POOL", group = "change")]
    parent: Option<Place>,
    /// Weight among its siblings: low, normal, high (those of a VM of 16GiB), or a number
    #[arg(long, value_name = "SHARES", group = "change", allow_hyphen_values = true)]
    shares: Option<Shares>,
    /// Machine memory that its VMs together always have
    #[arg(long, value_name = "SIZE", group = "change", allow_hyphen_values = true)]
    reservation: Option<Bytes>,
    /// Machine memory that its VMs together never exceed; "none": no limit
    #[arg(long, value_name = "SIZE", group = "change", allow_hyphen_values = true)]
    limit: Option<OrNone<Bytes>>,
    /// Whether reservations within it may expand into its parent's
    #[arg(long, value_name = "true|false", group = "change")]
    expandable: Option<bool>,
}

#[derive(Debug, clap::Args)]
struct Rm {
    /// Name of the pool
    #[arg(value_name = "POOL")]
    name: PoolName,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a PoolName,
}

impl PoolCommand {
    pub(crate) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Do::Create(create) => {
                let Create { name, parent, shares, reservation, limit, expandable } = create;
                let limit = limit.option();
                let pool = PoolDefinition { name, parent, shares, reservation, limit, expandable };
                context.output.facts(&context.client.define_pool(&pool)?, sentence)
            }
            Do::Set(set) => {
                let Set { name, parent, shares, reservation, limit, expandable } = set;
                let change = PoolChange { parent, shares, reservation, limit, expandable };
                context.output.facts(&context.client.change_pool(&name, &change)?, sentence)
            }
            Do::Ls => context.output.facts(context.client.pools()?.as_slice(), tree),
            Do::Rm(Rm { name }) => {
                context.client.remove_pool(&name)?;
                let removed = Removed { removed: &name };
                context.output.facts(&removed, |r| format!("pool {} is removed", r.removed))
            }
        }
    }
}

fn sentence(pool: &PoolStatus) -> String {
    let PoolStatus { name, parent, share_count, reservation, limit, expandable, .. } = pool;
    let shares = format!("{} ({share_count})", pool.shares);
    let settings = words::settings(parent, shares, *reservation, *limit, *expandable);
    format!("pool {name}: {settings}")
}

const COLUMNS: [Column; 9] = [
    Column::left("POOL"),
    Column::right("SHARES"),
    Column::right("RESERV"),
    Column::right("LIMIT"),
    Column::right("EXPAND"),
    Column::right("USED"),
    Column::right("ENTITLED"),
    Column::right("GRANTED"),
    Column::left("VMS"),
];

/// The pools as the daemon lists them, parents before their children, each indented below its
/// parent.
fn tree(pools: &[PoolStatus]) -> String {
    if pools.is_empty() {
        return "No pools: all VMs are on the host itself. Make one with: plimsoll pool create POOL"
            .to_owned();
    }
    let mut depths: BTreeMap<&PoolName, usize> = BTreeMap::new();
    let mut table = Table::new(&COLUMNS);
    for pool in pools {
        let depth = pool.parent.pool().and_then(|parent| depths.get(parent)).map_or(0, |depth| depth + 1);
        depths.insert(&pool.name, depth);
        let vms: Vec<String> = pool.vms.iter().map(ToString::to_string).collect();
        table.row([
            format!("{}{}", "  ".repeat(depth), pool.name),
            pool.share_count.to_string(),
            pool.reservation.to_string(),
            words::limit(pool.limit),
            if pool.expandable { "yes" } else { "no" }.to_owned(),
            pool.reserved.to_string(),
            pool.entitled.to_string(),
            pool.granted.to_string(),
            vms.join(" "),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, parent: &str, vms: &[&str]) -> PoolStatus {
        let mib = |n: u64| n << 20;
        serde_json::from_value(serde_json::json!({
            "name": name, "parent": parent, "shares": "normal", "share_count": 163_840, "reservation": mib(512),
            "expandable": true, "reserved": mib(300), "entitled": mib(600), "granted": mib(580), "pools": [], "vms": vms
        }))
        .unwrap()
    }

    #[test]
    fn the_tree_shows_who_is_in_whom() {
        let mut web = pool("web", "prod", &["web1", "web2"]);
        (web.limit, web.expandable) = (Some(Bytes::mib(1024)), false);
        let expected = "\
POOL   SHARES  RESERV  LIMIT  EXPAND    USED  ENTITLED  GRANTED  VMS
prod   163840  512MiB   none     yes  300MiB    600MiB   580MiB
  web  163840  512MiB   1GiB      no  300MiB    600MiB   580MiB  web1 web2
test   163840  512MiB   none     yes  300MiB    600MiB   580MiB";
        assert_eq!(tree(&[pool("prod", "/", &[]), web, pool("test", "/", &[])]), expected);
        assert!(tree(&[]).contains("plimsoll pool create"));
    }

    #[test]
    fn the_answer_shows_what_holds_now() {
        assert_eq!(
            sentence(&pool("web", "prod", &[])),
            "pool web: in prod, shares normal (163840), reservation 512MiB, limit none, expandable"
        );
    }
}
