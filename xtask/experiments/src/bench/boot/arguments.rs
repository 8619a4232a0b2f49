//! The command line of `cargo xtask bench boot`.

use clap::Args;
use plimsoll_lab::Switch;
use plimsoll_lab::kernel::Version;

/// How to measure.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// Measured starts of each VMM, after one of each to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) runs: u32,
    /// The guest's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    pub(super) kernel: Version,
    /// The lab's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    pub(super) host_kernel: Version,
    /// Nested paging in the lab; without it KVM builds shadow page tables.
    #[arg(long, value_enum, default_value = "on")]
    pub(super) npt: Switch,
    /// The guest kernel's command line. Without `quiet` the serial line takes most of the time.
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0 quiet reboot=acpi panic=-1")]
    pub(super) cmdline: String,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}
