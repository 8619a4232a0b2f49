//! `plimsoll show`: prints what a VM does and has, a fact a line.

use anyhow::Result;
use jiff::Timestamp;
use plimsoll_protocol::StartOrder;
use plimsoll_protocol::status::VmStatus;
use plimsoll_words::local_time::to_the_second;
use plimsoll_words::table::list;
use plimsoll_words::{devices, guest, paging, sharing, stall};

use super::ps;
use crate::batch::Batch;
use crate::context::Context;
use crate::selection::Selection;

const HELP: &str = "\
Lines:
  grant        machine memory that the host has promised the VM; it never holds more
  held         machine memory that its guest holds, as its own process says
  kernel       the same, by the host kernel's account
  wanted       memory that its guest waits for, beyond its grant, and also beyond its limit
  stalled      part of the last 10, 60 and 300 s in which it waited for memory: the whole VM (full), at least one fault of it (some)
  pool         resource pool that it is in; /: the host itself
  tax          part of an idle page's worth that it forfeits when memory is short
  active       estimate of what it actively uses
  entitlement  what policy gives it now, by shares, reservation, limit and activity
  target       what its balloon is steered to
  sharing      its sharing domain, what that saves, and the CPU time of the scanner
  chunks       2MiB pieces of its memory: empty, large (a huge page where possible), small (by single pages)
  disks        its disks as the guest names them, and the rates that they are held to
  networks     its network interfaces by their taps, and the rates that each direction is held to
  guest        what its balloon driver reports; a hostile guest may lie

Examples:
  plimsoll show web1
  plimsoll show web1 --json | jq .grant";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Show {
    #[command(flatten)]
    which: Selection,
}

impl Show {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let now = Timestamp::now();
        let plural = self.which.is_plural();
        let mut batch = Batch::new(context, plural);
        for name in self.which.vms(context, |_| true)? {
            let end = if plural { "\n\n" } else { "" };
            batch.tell(context.client.vm(&name), |vm| text(vm, now) + end)?;
        }
        batch.end()
    }
}

fn autostart(vm: &VmStatus) -> String {
    let marked = if vm.autostart { "yes" } else { "no" };
    if vm.autostart || vm.start_order != StartOrder::default() {
        return format!("{marked}, order {}, delay {}", vm.start_order, vm.start_delay);
    }
    marked.to_owned()
}

fn text(vm: &VmStatus, now: Timestamp) -> String {
    let mut facts = vec![("name", vm.name.to_string()), ("power", vm.power.to_string())];
    let note = plimsoll_words::note(vm);
    if !note.is_empty() {
        facts.push(("note", note));
    }
    if let Some(started) = vm.started {
        facts.push(("started", format!("{} (up {})", to_the_second(started), ps::up(vm, now))));
    }
    if let Some(pid) = vm.pid {
        facts.push(("pid", pid.to_string()));
    }
    facts.extend([
        ("vcpus", vm.vcpus.to_string()),
        ("size", vm.size.to_string()),
        ("reservation", vm.reservation.to_string()),
        ("limit", vm.limit.to_string()),
        ("shares", format!("{} ({})", vm.shares, vm.share_count)),
        ("pool", vm.pool.to_string()),
        ("autostart", autostart(vm)),
        ("labels", if vm.labels.is_empty() { "none".to_owned() } else { vm.labels.to_string() }),
        ("tax", vm.tax.map_or_else(|| "the host's".to_owned(), |tax| tax.to_string())),
        ("grant", vm.grant.to_string()),
        ("overhead", vm.overhead.to_string()),
        ("held", vm.held.to_string()),
        ("kernel", vm.kernel.to_string()),
        ("wanted", vm.wanted.to_string()),
        ("stalled", stall::text(vm)),
        ("active", vm.active.to_string()),
        ("entitlement", vm.entitlement.to_string()),
        ("target", vm.target.to_string()),
        ("balloon", format!("{} of {}, {}", vm.ballooned, vm.balloon_target, vm.balloon)),
        ("paging", paging::text(&vm.paging)),
        ("sharing", sharing::text(&vm.sharing)),
        (
            "chunks",
            format!("{} empty, {} large, {} small", vm.chunks.empty, vm.chunks.large, vm.chunks.small),
        ),
        ("faults", vm.faults.to_string()),
        ("reboots", vm.reboots.to_string()),
    ]);
    for (name, devices) in [("disks", devices::disks(&vm.disks)), ("networks", devices::nets(&vm.nets))] {
        if !devices.is_empty() {
            facts.push((name, devices));
        }
    }
    if let Some(said) = &vm.guest {
        facts.extend([("guest memory", guest::memory(said)), ("guest faults", guest::faults(said))]);
    }
    facts.push(("console", vm.console.display().to_string()));
    if let Some(vsock) = &vm.vsock {
        facts.push(("vsock", vsock.display().to_string()));
    }
    list(&facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_words::samples;

    #[test]
    fn all_facts_of_a_vm_are_shown() {
        let now = "2026-01-01T00:00:30Z".parse().unwrap();
        let expected = "\
name          web1
power         on
started       2026-01-01T00:00:00Z (up 30s)
pid           4711
vcpus         2
size          256MiB
reservation   64MiB
limit         256MiB
shares        normal (2560)
pool          /
autostart     no
labels        env=prod,tier=web
tax           the host's
grant         200MiB
overhead      8MiB
held          180MiB
kernel        181MiB
wanted        0B
stalled       full 10.51% of 10s, 4.00% of 60s, 1.00% of 300s, total 1m 1s; some 12.34% of 10s, 5.00% of 60s, 1.50% of 300s, total 1m 23s
active        40MiB
entitlement   160MiB
target        160MiB
balloon       56MiB of 96MiB, following
paging        8MiB compressed into 3MiB, 16MiB swapped out; swap space 192MiB; swaps 1MiB/s out, 512KiB/s in; paged out down to 170MiB: above its target, and its balloon is too small or too slow
sharing       in domain prod; shared 24MiB (costs 6MiB), zero 12MiB, saved 30MiB; scans 5MiB/s, unshares 8KiB/s; scanner uses 0.40% CPU of 2.00% allowed; large pages are broken up to share their parts
chunks        10 empty, 100 large, 18 small
faults        1234
reboots       1
guest memory  240MiB total, 20MiB free, 90MiB available, 70MiB cache
guest faults  3 major, 0 OOM kills
console       /run/plimsoll/web1.console
vsock         /run/plimsoll/web1.vsock";
        assert_eq!(text(&samples::vm("web1"), now), samples::local(expected));
    }

    #[test]
    fn devices_are_shown_where_there_are_any() {
        let disks =
            serde_json::from_value(serde_json::json!([{"name": "vda", "path": "/a", "burst": "100ms"}]));
        let vm = VmStatus { disks: disks.unwrap(), ..samples::vm("a") };
        assert!(text(&vm, Timestamp::now()).contains("\ndisks         vda /a (no limit)\nguest memory"));
    }

    #[test]
    fn a_vm_that_is_off_says_why() {
        assert!(text(&samples::off("a"), Timestamp::now()).contains("note         the guest shut down"));
    }
}
