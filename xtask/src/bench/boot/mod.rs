//! What a VM costs before its guest does anything: time to the guest's first user-space line, and the VMM's own memory.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::kernel::Version;
use crate::task::Switch;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// Measured starts of each VMM, after one of each to warm up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The guest's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    kernel: Version,
    /// The lab's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    host_kernel: Version,
    /// Nested paging in the lab; without it KVM builds shadow page tables.
    #[arg(long, value_enum, default_value = "on")]
    npt: Switch,
    /// As its last line, print the figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures and reports.
pub(super) fn run(arguments: &BootArgs) -> Result<ExitCode> {
    bail!("there is no VMM to measure yet: {arguments:?}")
}
