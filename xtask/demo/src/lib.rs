//! `cargo xtask demo`: four guests on a budget smaller than what they were promised.
//!
//! [`start`] finds a host that can run guests: this machine, or the lab, or with `--model` this
//! machine without guests' kernels. [`drive`] is the demo on that host, and [`report`] what it ends
//! with.
//!
//! The demo is the first thing that a newcomer builds. So this package has a program of its own,
//! which is all that `cargo xtask demo` needs beside Plimsoll's programs, and it depends on nothing
//! that only tests or experiments use. Start reading at [`drive::run`].

mod age;
pub mod drive;
mod in_lab;
mod report;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use plimsoll_lab::Switch;
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{self, step};
use preflight::kvm;

use drive::Plan;

/// Show four guests sharing less memory than they were promised.
///
/// Four guests of 256 MiB run on a budget of 640 MiB; each in turn writes nearly its whole memory
/// and verifies it. The guests run on this machine's KVM where it can run them, otherwise in the
/// lab.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --host-kernel 6.1 --npt off --json\n  \
    cargo xtask demo --model         no KVM and no QEMU: guests are host threads\n  \
    cargo xtask demo --keep          and then, from another terminal:\n  \
    cargo xtask lab --attach -- plimsoll ps"
)]
pub struct DemoArgs {
    /// Print the summary as one JSON object in the last line.
    #[arg(long)]
    json: bool,
    /// Leave the guests running at the end and say how to look at them.
    #[arg(long)]
    keep: bool,
    /// Guests are host threads, not kernels: needs neither KVM nor QEMU. The same daemon, ledger
    /// and guest memory.
    #[arg(long)]
    model: bool,
    /// The kernel of the lab's virtual host, where the lab is used.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    host_kernel: Version,
    /// Nested paging of the lab's virtual host.
    #[arg(long, value_enum, default_value = "on")]
    npt: Switch,
    /// How long the user has waited so far: the lab's process does not know.
    #[arg(long, hide = true, value_name = "SECONDS", default_value_t = 0.0)]
    waited: f64,
    /// Use the lab even where this machine's KVM could run the guests.
    #[arg(long, conflicts_with = "model")]
    lab: bool,
}

/// Runs the demo wherever it can run.
pub fn start(arguments: &DemoArgs) -> Result<ExitCode> {
    if arguments.model {
        step("guests are MODELS: host threads in plimsoll-vmm, no guest kernel and no KVM");
        workspace::build_for_models()?;
        return here(arguments);
    }
    match kvm::usable() {
        Ok(()) if !arguments.lab => {
            step("this machine's KVM runs the guests");
            workspace::build()?;
            return here(arguments);
        }
        Ok(()) => {}
        Err(why) => step(&format!("this machine's KVM cannot run guests ({why}): using the lab")),
    }
    in_lab::run(arguments)
}

/// Runs the demo on the host that this runs on.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
pub fn here(arguments: &DemoArgs) -> Result<ExitCode> {
    let waited = Duration::try_from_secs_f64(arguments.waited).context("reading --waited")?;
    let plan = Plan { waited, ..Plan::new(arguments.model) };
    let (report, stage) = drive::run(&plan, arguments.keep)?;
    let label = if arguments.model { "Model guests (host threads, no kernels).\n" } else { "" };
    println!("\n{label}{}", report.text());
    if arguments.keep {
        let socket = stage.socket();
        let directory = stage.keep();
        println!("\nIt goes on: plimsoll --socket {} ps", socket.display());
        println!(
            "Its files are in {}; `plimsoll kill` each VM and end plimsolld when done.",
            directory.display()
        );
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&report).context("writing the summary")?);
    }
    std::io::stdout().flush().context("writing the summary")?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
