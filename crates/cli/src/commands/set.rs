use std::collections::BTreeMap;

use anyhow::Result;
use plimsoll_protocol::change::VmChange;
use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::VmStatus;
use plimsoll_protocol::{LabelKey, LabelValue, OrNone, Place, Shares, StartDelay, StartOrder, TaxRate};
use plimsoll_units::Bytes;

use crate::batch::Batch;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
When memory is short, what is above all reservations is divided by shares among the VMs and pools of one pool, and idle memory counts for less. A raised reservation must fit what its pool, or the host, has not reserved for others; the answer says how much is missing. Changes take effect at once, while the VM runs or not.

Examples:
  plimsoll set web1 --shares high
  plimsoll set web1 web2 --pool web
  plimsoll set web1 --add-label tier=web --remove-label env
  plimsoll set --label tier=web --shares low
  plimsoll set db --autostart true --start-order 10 --start-delay 30s
  plimsoll set web1 --reservation 512MiB --limit 1GiB
  plimsoll set web1 --limit none --shares 4000
  plimsoll set web1 --pool prod        move it into a pool; --pool / moves it back to the host itself
  plimsoll set web1 --tax 0            never take memory from it only because it is idle";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Set {
    #[command(flatten)]
    which: Selection,
    /// Weight when memory is short: low, normal, high (5, 10, 20 per MiB of size), or a number
    #[arg(long, value_name = "SHARES", group = "change", allow_hyphen_values = true)]
    shares: Option<Shares>,
    /// Machine memory that it always has
    #[arg(long, value_name = "SIZE", group = "change", allow_hyphen_values = true)]
    reservation: Option<Bytes>,
    /// Machine memory that it never exceeds; "none": its size
    #[arg(long, value_name = "SIZE", group = "change", allow_hyphen_values = true)]
    limit: Option<OrNone<Bytes>>,
    /// Resource pool that it is in; "/": the host itself
    #[arg(long, value_name = "POOL", group = "change")]
    pool: Option<Place>,
    /// Tax on its idle memory, 0 to 0.99; "none": the host's
    #[arg(long, value_name = "TAX", group = "change", allow_hyphen_values = true)]
    tax: Option<OrNone<TaxRate>>,
    /// Whether it is started when the host has booted (plimsoll start --autostart)
    #[arg(long, value_name = "true|false", group = "change")]
    autostart: Option<bool>,
    /// Its place among the VMs that start and stop with the host, 0 to 999: lower ones start
    /// earlier and stop later
    #[arg(long, value_name = "N", group = "change", allow_hyphen_values = true)]
    start_order: Option<StartOrder>,
    /// How long the next VM waits after this one has started
    #[arg(long, value_name = "TIME", group = "change", allow_hyphen_values = true)]
    start_delay: Option<StartDelay>,
    /// Label to add, or to give another value
    #[arg(long, value_name = "KEY=VALUE", group = "change", value_parser = label)]
    add_label: Vec<(LabelKey, LabelValue)>,
    /// Label to remove
    #[arg(long, value_name = "KEY", group = "change")]
    remove_label: Vec<LabelKey>,
    /// Whom it shares pages with: own, zero, off, or the name of a domain
    #[arg(long, value_name = "DOMAIN", group = "change")]
    sharing: Option<Sharing>,
}

impl Set {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let change = VmChange {
            shares: self.shares,
            reservation: self.reservation,
            limit: self.limit,
            pool: self.pool.clone(),
            autostart: self.autostart,
            start_order: self.start_order,
            start_delay: self.start_delay,
            labels: self.labels(),
            tax: self.tax,
            sharing: self.sharing.clone(),
        };
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in self.which.vms(context, |_| true)? {
            batch.tell(context.client.change(&name, &change), changed)?;
        }
        batch.end()
    }

    fn labels(&self) -> BTreeMap<LabelKey, Option<LabelValue>> {
        let removed = self.remove_label.iter().map(|key| (key.clone(), None));
        let added = self.add_label.iter().cloned().map(|(key, value)| (key, Some(value)));
        removed.chain(added).collect()
    }
}

fn label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not a label: write KEY=VALUE"))?;
    Ok((key.parse()?, value.parse()?))
}

fn changed(vm: &VmStatus) -> String {
    let VmStatus { name, shares, share_count, reservation, limit, pool, target, .. } = vm;
    let tax = vm.tax.map_or_else(String::new, |tax| format!(", tax {tax}"));
    let start = if vm.autostart {
        format!(", autostart (order {}, delay {})", vm.start_order, vm.start_delay)
    } else {
        String::new()
    };
    let labels = if vm.labels.is_empty() { String::new() } else { format!(", labels {}", vm.labels) };
    let note = vm.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    format!(
        "{name}: pool {pool}, shares {shares} ({share_count}), reservation {reservation}, limit {limit}{tax}{start}{labels}, sharing {}, target {target}{note}",
        vm.sharing.with
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn the_answer_shows_what_holds_now() {
        assert_eq!(
            changed(&samples::vm("a")),
            "a: pool /, shares normal (2560), reservation 64MiB, limit 256MiB, labels env=prod,tier=web, sharing prod, target 160MiB"
        );
        let mut unsaved = samples::vm("a");
        unsaved.note = Some("not on disk".to_owned());
        assert!(changed(&unsaved).ends_with(", target 160MiB; not on disk"));
        let marked = VmStatus { autostart: true, ..samples::vm("a") };
        assert!(
            changed(&marked).contains(", autostart (order 100, delay 0s), labels"),
            "{}",
            changed(&marked)
        );
    }
}
