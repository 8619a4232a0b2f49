use std::fmt;

use plimsoll_protocol::control::GuestFacts;
use plimsoll_protocol::status::{BalloonHealth, Power, VmStatus};
use plimsoll_units::Bytes;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::metric::{
    Label, Table, bytes, bytes_if_any, number, number_by, seconds, total, total_bytes, total_if_any,
    total_seconds,
};

/// The label that names a VM.
const LABEL: Label<VmStatus> = ("vm", |vm| vm.name.as_str());

/// Metrics of all VMs, whether they run or not.
pub(super) const DEFINED: Table<VmStatus> = Table {
    kind: "vm",
    label: Some(LABEL),
    metrics: &[
        number("running", "1 if the VM has a process, or is about to, 0 if it is off", |vm| {
            u64::from(is_on(vm))
        }),
        bytes("size", "Memory that the guest sees", |vm| vm.size),
        bytes("reservation", "Machine memory that the VM always has", |vm| vm.reservation),
        bytes("limit", "Machine memory that the VM never exceeds", |vm| vm.limit),
        number("shares", "The VM's weight among its siblings", |vm| vm.share_count),
        number("vcpus", "Processors of the VM", |vm| u64::from(vm.vcpus)),
    ],
};

/// Metrics of VMs that run.
pub(super) const ON: Table<VmStatus> = Table {
    kind: "vm",
    label: Some(LABEL),
    metrics: &[
        bytes("entitlement", "Machine memory that policy gives the VM", |vm| vm.entitlement),
        bytes("target", "Machine memory that its mechanisms steer the VM to", |vm| vm.target),
        bytes("grant", "Machine memory that the ledger has promised to the guest", |vm| vm.grant),
        bytes("overhead", "Machine memory that the VM is charged for its VMM", |vm| vm.overhead),
        bytes("frames", "The VM's part of shared frames, which it is charged beside its grant", |vm| {
            vm.sharing.charged
        }),
        bytes("held", "Held by the guest, as its VMM says; at most its grant", |vm| vm.held),
        bytes("resident", "Resident guest memory, as the kernel accounts it", |vm| vm.kernel),
        bytes("active", "Estimate of the memory that the guest uses", |vm| vm.active),
        bytes("wanted", "Memory that the VM's faults wait for", |vm| vm.wanted),
        bytes("ballooned", "Guest memory in the balloon", |vm| vm.ballooned),
        bytes("balloon_target", "Size that the balloon is to have", |vm| vm.balloon_target),
        number("balloon_driver", "1 if the guest has a balloon driver, 0 if not", |vm| {
            u64::from(vm.balloon != BalloonHealth::Absent)
        }),
        number("balloon_stuck", "1 if the balloon has not moved towards its target for some time", |vm| {
            u64::from(vm.balloon == BalloonHealth::Stuck)
        }),
        bytes("compressed", "Guest memory whose content is compressed", |vm| vm.paging.compressed),
        bytes("store", "Machine memory that compressed content takes; part of what is held", |vm| {
            vm.paging.store
        }),
        bytes("swapped", "Guest memory whose content is in swap space only", |vm| vm.paging.swapped),
        bytes("swap_space", "Swap space that the VM has; 0: nothing is swapped out of it", |vm| {
            vm.paging.space
        }),
        total_bytes("zipped", "Compressed since the VM was started", |vm| vm.paging.zipped),
        total_bytes("unzipped", "Decompressed again since the VM was started", |vm| vm.paging.unzipped),
        total_bytes("swap_out", "Written to swap space since the VM was started", |vm| vm.paging.swapped_out),
        total_bytes("swap_in", "Read from swap space since the VM was started", |vm| vm.paging.swapped_in),
        number("blocked", "1 while the VM's processors are stopped until it holds less", |vm| {
            u64::from(vm.paging.blocked)
        }),
        number("paging_stuck", "1 while what was asked for cannot be paged out of the VM", |vm| {
            u64::from(vm.paging.stuck)
        }),
        number(
            "swap_failed",
            "1 if the VM's swap space cannot be written: nothing more is swapped out",
            |vm| u64::from(vm.paging.failed),
        ),
        bytes("shared", "Guest memory that reads frames of the VM's sharing domain", |vm| vm.sharing.shared),
        bytes("zero", "Guest memory that was found to hold zeros, and costs nothing", |vm| vm.sharing.zero),
        bytes("saved", "What the VM would need in addition if nothing were shared", |vm| vm.sharing.saved),
        total_bytes("scanned", "Looked at for sharing since the VM was started", |vm| vm.sharing.scanned),
        total_bytes("merged", "Merged with pages of the same content since the VM was started", |vm| {
            vm.sharing.merged
        }),
        total_bytes(
            "broken",
            "Shared memory that the guest has written again since the VM was started",
            |vm| vm.sharing.broken,
        ),
        number(
            "doubted",
            "1 while requests of the VM to share are ignored: its VMM made false claims",
            |vm| u64::from(vm.sharing.doubted),
        ),
        total_seconds(
            "stall_some",
            "Time in which part of the VM waited for memory since it was started",
            |vm| seconds_of(vm.stall.some.total_ms),
        ),
        total_seconds(
            "stall_full",
            "Time in which all of the VM waited for memory since it was started",
            |vm| seconds_of(vm.stall.full.total_ms),
        ),
        number("stalled", "1 while the VM stands still for want of memory", |vm| {
            u64::from(vm.stalled.is_some())
        }),
        number_by(
            "chunks",
            "Chunks of 2 MiB of guest memory by state: empty, large pages, small pages",
            "state",
            |vm| vec![("empty", vm.chunks.empty), ("large", vm.chunks.large), ("small", vm.chunks.small)],
        ),
        total("faults", "Faults served since the VM was started", |vm| vm.faults),
        total("reboots", "Times that the guest rebooted since the VM was started", |vm| {
            u64::from(vm.reboots)
        }),
        total(
            "filtered_packets",
            "Packets that the guest has sent from foreign addresses, dropped since the VM was started",
            // A VMM may claim any number.
            |vm| vm.nets.iter().fold(0, |sum: u64, net| sum.saturating_add(net.filtered)),
        ),
        seconds("start_time", "When the VM was started, since 1970", |vm| {
            vm.started.map(|at| at.as_duration().as_secs_f64())
        }),
        bytes_if_any("guest_free", "Memory that the guest uses for nothing, as it says", |vm| {
            guest(vm, |guest| guest.free)
        }),
        bytes_if_any(
            "guest_available",
            "Memory that the guest could use without swapping, as it says",
            |vm| guest(vm, |guest| guest.available),
        ),
        bytes_if_any("guest_cache", "The guest's page cache, as it says", |vm| {
            guest(vm, |guest| guest.cache)
        }),
        total_if_any(
            "guest_oom_kills",
            "Times that the guest's OOM killer ran since its boot, as it says",
            |vm| vm.guest.map(|guest| guest.oom_kills),
        ),
        total_if_any("guest_major_faults", "Major faults of the guest since its boot, as it says", |vm| {
            vm.guest.map(|guest| guest.major_faults)
        }),
    ],
};

/// Writes where each VM is, for joins with the other metrics.
pub(super) fn info(vms: &[VmStatus], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "The VM's pool, what it shares pages with, and whether it is a model without a kernel";
    let mut family = encoder.encode_descriptor("vm", help, None, MetricType::Info)?;
    for vm in vms {
        let (pool, sharing, model) = (vm.pool.to_string(), vm.sharing.with.to_string(), vm.model.to_string());
        let labels = [("vm", vm.name.as_str()), ("pool", &pool), ("sharing", &sharing), ("model", &model)];
        family.encode_info(&labels)?;
    }
    Ok(())
}

/// Whether the VM has a process, or is about to.
pub(super) fn is_on(vm: &VmStatus) -> bool {
    vm.power != Power::Off
}

fn guest(vm: &VmStatus, of: fn(&GuestFacts) -> Bytes) -> Option<Bytes> {
    vm.guest.as_ref().map(of)
}

/// Milliseconds in seconds.
#[expect(clippy::cast_precision_loss, reason = "285,000 years are exact")]
pub(super) fn seconds_of(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}
