//! Benchmarks. Each measures Plimsoll against a baseline in the same run, by turns and after a
//! warm-up, prints medians and spread, and says what its figures do not show.

mod boot;
mod crowd;
mod double_paging;
mod fault;
mod follow;
mod goal;
mod hostile;
mod index;
mod memory;
mod plan;
mod policy;
mod reclaim;
mod report;
mod response;
mod rest;
mod sampling;
mod sharing;
mod swap;
mod thousand;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Start-up time and memory of our VMM, in the lab, against QEMU's microvm machine.
    Boot(boot::BootArgs),
    /// A hundred VMs that want more than the host has, where nothing can be paged out: how memory
    /// is divided, how soon raised shares act, and the processor time of pagers.
    Crowd(crowd::CrowdArgs),
    /// A guest that swaps by itself under a host that swaps: random victims against the least
    /// recently used ones.
    DoublePaging(double_paging::DoublePagingArgs),
    /// How long a touch of a compressed page takes, against the shortest round trip of a page
    /// fault.
    Fault(fault::FaultArgs),
    /// How long the daemon's loop takes for a turn while hostile VMMs keep it busy, beside honest
    /// guests, against a daemon at rest.
    Hostile(hostile::HostileArgs),
    /// How fast and how large the index of shared pages is, against a HashMap of the same entries.
    Index(index::IndexArgs),
    /// The same course through `plimsoll plan` and through a daemon with model guests: what VMs
    /// have, minute by minute.
    Plan(plan::PlanArgs),
    /// How long policy takes to divide a host's memory among 10 to 100,000 VMs in pools.
    Policy(policy::PolicyArgs),
    /// How fast touched free memory goes back to the host, in 2 MiB and 4 KiB units, against a
    /// balloon without coalescing.
    Reclaim(reclaim::ReclaimArgs),
    /// How soon a guest that turns busy has the memory that idle ones hold, by balloons and by
    /// swap, against free memory, fixed limits, Proxmox' rule and free page reporting.
    Response(response::ResponseArgs),
    /// How still targets stand on a host at rest, and how far estimates are from the truth.
    Rest(rest::RestArgs),
    /// What sampling costs a guest that touches all its memory, and how far what it shows is from
    /// the truth.
    Sampling(sampling::SamplingArgs),
    /// How much equal memory is merged for how much CPU time, against the kernel's own merging.
    Sharing(sharing::SharingArgs),
    /// How long a touch of a swapped page takes, against a bare read of the disk and against the
    /// kernel's own swapping.
    Swap(swap::SwapArgs),
    /// A thousand VMs on one daemon: start, rest, some busy, restart of the daemon, stop; times,
    /// processor time, memory, the API's answers, and what is left over.
    Thousand(thousand::ThousandArgs),
}

impl Bench {
    /// Measures and reports.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Boot(arguments) => boot::run(&arguments),
            Self::Crowd(arguments) => crowd::run(&arguments),
            Self::DoublePaging(arguments) => double_paging::run(&arguments),
            Self::Fault(arguments) => fault::run(&arguments),
            Self::Hostile(arguments) => hostile::run(&arguments),
            Self::Index(arguments) => index::run(&arguments),
            Self::Plan(arguments) => plan::run(&arguments),
            Self::Policy(arguments) => policy::run(&arguments),
            Self::Reclaim(arguments) => reclaim::run(&arguments),
            Self::Response(arguments) => response::run(&arguments),
            Self::Rest(arguments) => rest::run(&arguments),
            Self::Sampling(arguments) => sampling::run(&arguments),
            Self::Sharing(arguments) => sharing::run(&arguments),
            Self::Swap(arguments) => swap::run(&arguments),
            Self::Thousand(arguments) => thousand::run(&arguments),
        }
    }
}

/// The part of a benchmark that runs in the lab.
#[derive(Debug, Subcommand)]
pub enum Inside {
    /// Start one VMM and measure it.
    Boot(boot::StartArgs),
}

impl Inside {
    /// Measures, and prints what came out as one line of JSON.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Boot(arguments) => boot::inside(&arguments),
        }
    }
}
