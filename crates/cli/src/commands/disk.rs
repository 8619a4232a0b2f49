use anyhow::Result;
use clap::Subcommand;
use plimsoll_protocol::change::DiskResize;
use plimsoll_protocol::{DiskName, VmName};
use plimsoll_units::Bytes;

use crate::context::Context;

const RESIZE_HELP: &str = "\
A raw file is made longer. A qcow2 image is made longer while its VM is on. A block device is made longer by other means first, with lvextend for example; then leave SIZE out: the VM takes up the size that the device has. A guest that runs is told at once, and then grows its partition and file system, with growpart and resize2fs for example. No disk shrinks.

A VM does not start with a qcow2 image whose header names other backing files than at its first start, or a larger disk: its guest may have written that. If you have changed the image yourself, have it taken as it is: leave SIZE out, while the VM is off.

Examples:
  plimsoll disk resize web1 vda 40GiB
  plimsoll disk resize db vdb          the size that /dev/vg0/db-data has by now";

/// Disks of VMs.
#[derive(Debug, clap::Args)]
pub(crate) struct Disk {
    #[command(subcommand)]
    command: Do,
}

#[derive(Debug, Subcommand)]
enum Do {
    /// Have a disk grow, while its VM is on or off
    #[command(after_help = RESIZE_HELP)]
    Resize(Resize),
}

#[derive(Debug, clap::Args)]
struct Resize {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
    /// The disk, as its guest names it: vda is the first
    #[arg(value_name = "DISK")]
    disk: DiskName,
    /// Size that it is to have [default: that of its file, block device or image]
    #[arg(value_name = "SIZE")]
    size: Option<Bytes>,
}

impl Disk {
    pub(crate) fn run(self, context: &Context) -> Result<()> {
        let Do::Resize(Resize { name, disk, size }) = self.command;
        let resized = context.client.resize_disk(&name, DiskResize { disk, size })?;
        context
            .output
            .facts(&resized, |resized| format!("{name}: disk {} has {}", resized.disk, resized.size))
    }
}
