//! `plimsoll set`: changes what is defined of VMs, while they run or not.

use std::collections::BTreeMap;

use anyhow::Result;
use plimsoll_protocol::change::{DiskChange, NetChange, VmChange};
use plimsoll_protocol::sharing::Sharing;
use plimsoll_protocol::status::VmStatus;
use plimsoll_protocol::{
    Burst, DiskName, LabelKey, LabelValue, LinkState, OrNone, Place, Shares, StartDelay, StartOrder, TaxRate,
};
use plimsoll_units::Bytes;
use plimsoll_words::devices;

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
  plimsoll set web1 --tax 0            never take memory from it only because it is idle
  plimsoll set web1 --disk vda --iops 500 --bandwidth 50MiB --burst 2s
  plimsoll set web1 --net tap0 --bandwidth none --packets 10000
  plimsoll set web1 --net tap0 --link down   unplug the cable of its interface";

/// Where options for devices stand in the help.
const DEVICE: &str = "A disk or a network interface";

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
    /// What it shares pages with: own, zero, off, or the name of a domain
    #[arg(long, value_name = "DOMAIN", group = "change")]
    sharing: Option<Sharing>,
    #[command(flatten)]
    device: Device,
}

/// The options of which a device needs one at least.
const SETTINGS: [&str; 6] = ["iops", "packets", "bandwidth", "burst", "link", "mac_filter"];

/// Options for one disk or network interface.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("device").args(["disk", "net"]))]
#[command(group = clap::ArgGroup::new("setting").args(SETTINGS).multiple(true))]
struct Device {
    /// The disk that is to be changed, as its guest names it: vda is the first
    #[arg(long, value_name = "DISK", help_heading = DEVICE, requires = "setting")]
    disk: Option<DiskName>,
    /// The network interface that is to be changed, by its tap
    #[arg(long, value_name = "TAP", help_heading = DEVICE, requires = "setting")]
    net: Option<String>,
    /// Most requests a second of the disk; "none": no limit
    #[arg(long, value_name = "N", help_heading = DEVICE, group = "change", requires = "disk", conflicts_with = "net")]
    iops: Option<OrNone<u64>>,
    /// Most packets a second of the interface in each direction; "none": no limit
    #[arg(long, value_name = "N", help_heading = DEVICE, group = "change", requires = "net", conflicts_with = "disk")]
    packets: Option<OrNone<u64>>,
    /// Most bytes a second, of an interface in each direction; "none": no limit
    #[arg(long, value_name = "SIZE", help_heading = DEVICE, group = "change", requires = "device")]
    bandwidth: Option<OrNone<Bytes>>,
    /// After a rest it may do at once as much as it does in this time at these rates, 100ms to 60s;
    /// "none": 100ms
    #[arg(long, value_name = "TIME", help_heading = DEVICE, group = "change", requires = "device")]
    burst: Option<OrNone<Burst>>,
    /// Whether the cable of the interface is plugged in: up or down
    #[arg(
        long,
        value_name = "STATE",
        help_heading = DEVICE,
        group = "change",
        requires = "net",
        conflicts_with = "disk"
    )]
    link: Option<LinkState>,
    /// Whether packets that the guest sends from another address than its own are dropped
    #[arg(
        long,
        value_name = "true|false",
        help_heading = DEVICE,
        group = "change",
        requires = "net",
        conflicts_with = "disk"
    )]
    mac_filter: Option<bool>,
}

impl Device {
    fn disks(&self) -> BTreeMap<DiskName, DiskChange> {
        let Self { iops, bandwidth, burst, .. } = *self;
        self.disk.iter().map(|disk| (*disk, DiskChange { iops, bandwidth, burst })).collect()
    }

    fn nets(&self) -> BTreeMap<String, NetChange> {
        let Self { packets, bandwidth, burst, link, mac_filter, .. } = *self;
        let change = NetChange { link, mac_filter, packets, bandwidth, burst };
        self.net.iter().map(|tap| (tap.clone(), change)).collect()
    }
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
            disks: self.device.disks(),
            nets: self.device.nets(),
        };
        let mut batch = Batch::new(context, self.which.is_plural());
        for name in self.which.vms(context, |_| true)? {
            batch.tell(context.client.change(&name, &change), |vm| changed(vm, &change))?;
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

/// What holds now, with the devices that `change` names.
fn changed(vm: &VmStatus, change: &VmChange) -> String {
    let VmStatus { name, shares, share_count, reservation, limit, pool, target, .. } = vm;
    let tax = vm.tax.map_or_else(String::new, |tax| format!(", tax {tax}"));
    let start = if vm.autostart {
        format!(", autostart (order {}, delay {})", vm.start_order, vm.start_delay)
    } else {
        String::new()
    };
    let labels = if vm.labels.is_empty() { String::new() } else { format!(", labels {}", vm.labels) };
    let note = vm.note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    let disks = vm.disks.iter().filter(|disk| change.disks.contains_key(&disk.name)).map(devices::disk);
    let nets = vm.nets.iter().filter(|net| change.nets.contains_key(&net.tap)).map(devices::net);
    let devices: String = disks.chain(nets).map(|device| format!(", {device}")).collect();
    format!(
        "{name}: pool {pool}, shares {shares} ({share_count}), reservation {reservation}, limit {limit}{tax}{start}{labels}, sharing {}, target {target}{devices}{note}",
        vm.sharing.with
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn the_answer_shows_what_holds_now() {
        let none = VmChange::default();
        assert_eq!(
            changed(&samples::vm("a"), &none),
            "a: pool /, shares normal (2560), reservation 64MiB, limit 256MiB, labels env=prod,tier=web, sharing prod, target 160MiB"
        );
        let mut unsaved = samples::vm("a");
        unsaved.note = Some("not on disk".to_owned());
        assert!(changed(&unsaved, &none).ends_with(", target 160MiB; not on disk"));
        let marked = VmStatus { autostart: true, ..samples::vm("a") };
        assert!(
            changed(&marked, &none).contains(", autostart (order 100, delay 0s), labels"),
            "{}",
            changed(&marked, &none)
        );
    }

    #[test]
    fn the_answer_shows_the_device_that_was_changed() {
        let disks = serde_json::from_value(serde_json::json!([
            {"name": "vda", "path": "/a", "iops": 500, "burst": "2s"},
            {"name": "vdb", "path": "/b", "burst": "100ms"},
        ]));
        let vm = VmStatus { disks: disks.unwrap(), ..samples::vm("a") };
        let change = serde_json::from_value(serde_json::json!({"disk": {"vda": {"iops": 500}}})).unwrap();
        let text = changed(&vm, &change);
        assert!(text.ends_with(", target 160MiB, vda /a (500 requests/s, burst 2s)"), "{text}");
    }

    /// The change that a command line asks for.
    fn device(line: &str) -> Result<Device, clap::Error> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            set: Set,
        }
        let line = ["set", "web1"].into_iter().chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(line).map(|line| line.set.device)
    }

    #[test]
    fn options_of_devices_belong_to_one_device() {
        let disk = device("--disk vdb --iops 500 --bandwidth none --burst 2s").unwrap();
        let burst = OrNone::To("2s".parse().unwrap());
        let change =
            DiskChange { iops: Some(OrNone::To(500)), bandwidth: Some(OrNone::None), burst: Some(burst) };
        assert_eq!((disk.disks(), disk.nets()), ([("vdb".parse().unwrap(), change)].into(), BTreeMap::new()));
        let net = device("--net tap0 --packets 1000 --bandwidth 10MiB").unwrap();
        let bandwidth = Some(OrNone::To(Bytes::mib(10)));
        let change = NetChange { packets: Some(OrNone::To(1000)), bandwidth, ..NetChange::default() };
        assert_eq!((net.disks(), net.nets()), (BTreeMap::new(), [("tap0".to_owned(), change)].into()));
        for bad in [
            "--disk vda",
            "--disk vda --shares high",
            "--iops 500",
            "--bandwidth 1MiB",
            "--burst 1s --shares high",
            "--disk vda --net tap0 --bandwidth 1MiB",
            "--disk vda --packets 100",
            "--disk vda --link down",
            "--link down",
            "--net tap0 --link sideways",
            "--net tap0 --iops 100",
            "--disk sda --iops 100",
            "--disk vda --burst 1h",
        ] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
