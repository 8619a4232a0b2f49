//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use plimsoll_campaigns::Campaign;
use plimsoll_demo::DemoArgs;
use plimsoll_experiments::bench::{self, Bench};
use plimsoll_experiments::paper::{self, PaperArgs};
use plimsoll_lab::inside::agent;
use plimsoll_lab::kernel::{Kernel, Version};
use plimsoll_lab::wire::Request;
use plimsoll_lab::{Config, Lab, Switch, attach, debian, workspace};
use plimsoll_package::PackageArgs;
use plimsoll_scenarios::fuzz::{self, FuzzArgs};
use plimsoll_scenarios::test::{self, TestArgs};
use plimsoll_scenarios::{Guests, system};
use plimsoll_units::Bytes;
use preflight::packages;

/// Entry points for developers and newcomers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
pub(crate) struct Task {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Boot a virtual host under QEMU and run a command in it.
    ///
    /// The host has a Debian kernel with kvm-amd on an emulated processor, busybox, and plimsolld,
    /// plimsoll-vmm, plimsoll and toucher in /bin. Guests' kernels are in /guests/6.1 and
    /// /guests/6.12 (vmlinuz, initrd). The command's output appears as it comes and its exit status
    /// becomes ours. Nothing is left running.
    #[command(after_help = "Examples:\n  cargo xtask lab -- plimsoll doctor\n  \
        cargo xtask lab --kernel 6.1 --npt off -- sh -c 'uname -r; cat /sys/module/kvm_amd/parameters/npt'\n  \
        cargo xtask lab --share ./data --artifacts ./out -- sh -c 'cp /share/* /artifacts'")]
    Lab(LabArgs),
    /// Build a Debian disk: a root file system with Debian's own kernel, systemd and udev.
    ///
    /// The packages come from the mirrors that this machine's apt uses. Root has no password on the
    /// console. The disk boots with `from = "disk"`; kernel and initrd are also put beside it, as
    /// PATH.vmlinuz and PATH.initrd.
    #[command(after_help = "Example:\n  cargo xtask image -o /srv/vm/debian.raw\n  \
        and in the VM's definition:\n    [boot]\n    kernel = \"/srv/vm/debian.raw.vmlinuz\"\n    \
        initrd = \"/srv/vm/debian.raw.initrd\"\n    cmdline = \"console=ttyS0 root=/dev/vda\"\n    \
        [[disk]]\n    path = \"/srv/vm/debian.raw\"")]
    Image(ImageArgs),
    /// Measure, against a baseline in the same run.
    #[command(subcommand)]
    Bench(Bench),
    /// Run against a daemon for long: what shows only in the long run, or by chance.
    #[command(subcommand)]
    Campaign(Campaign),
    /// Print a figure of the paper that Plimsoll is built after, and ours beside it.
    ///
    /// Figures 2 and 4 to 7 run guests in the lab, some ten minutes each on a machine that does
    /// nothing else, 4 and 5 longer; figure 8, and figure 7 on request, are simulated in an
    /// instant.
    Paper(PaperArgs),
    Demo(DemoArgs),
    /// Run every test: formatting, lints, docs, unit and property tests, and system tests in the
    /// lab.
    #[command(after_help = "Examples:\n  cargo xtask test --list\n  cargo xtask test --only unit\n  \
        cargo xtask test --only overcommit --matrix\n  cargo xtask test --no-lab")]
    Test(TestArgs),
    /// Send what others could send: guests, VMMs, clients, files; with libFuzzer, and coverage.
    ///
    /// What is found new is kept in target/fuzz/corpus and is where the next run begins. An input
    /// that breaks a rule is kept in target/fuzz/crashes.
    #[command(after_help = "Examples:\n  cargo xtask fuzz --executions 100000000\n  \
        cargo xtask fuzz core api --seconds 600 --json\n  \
        cargo xtask fuzz core --input target/fuzz/crashes/core/crash-0f")]
    Fuzz(FuzzArgs),
    /// Make the Debian package: the programs, systemd units, the configuration, man pages and
    /// completions.
    Package(PackageArgs),
    /// Write the pages of the book's reference that are made of the code.
    Book,
    /// Install the Debian packages that the lab needs (as root), fetch its kernels and build
    /// everything.
    Setup(SetupArgs),
    /// What runs inside the lab.
    #[command(hide = true, subcommand)]
    Inside(Inside),
}

#[derive(Debug, Args)]
struct LabArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Copy this directory into the lab, at /share. What the lab writes there is lost.
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// When the command has ended, copy the lab's /artifacts to this directory.
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Make a TCP port of the lab reachable at a port of this machine's loopback. May be repeated.
    #[arg(long, value_name = "HERE:LAB", value_parser = forward)]
    forward: Vec<(u16, u16)>,
    /// Kill the command when it runs longer than this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Afterwards, show what the lab's kernel wrote to its console.
    #[arg(long)]
    console: bool,
    /// Run the command in the lab that `cargo xtask demo --keep` left running.
    #[arg(long, conflicts_with_all = ["share", "artifacts", "forward", "console", "kernel", "npt", "memory"])]
    attach: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What virtual host to boot.
#[derive(Clone, Debug, Args)]
struct HostArgs {
    /// The host's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.12")]
    kernel: Version,
    /// Nested paging; without it KVM builds shadow page tables.
    #[arg(long, value_enum, default_value = "on")]
    npt: Switch,
    /// The host's memory.
    #[arg(long, value_name = "SIZE", default_value = "3GiB")]
    memory: Bytes,
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// The disk's kernel.
    #[arg(long, value_name = "6.1|6.12", default_value = "6.1")]
    kernel: Version,
    /// The disk's size; what is not used takes no space.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    size: Bytes,
    /// Where to put the disk.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
}

#[derive(Debug, Args)]
struct SetupArgs {
    /// Look for newer kernels and packages than those in the cache.
    // Preflight reads it, and has done it when this program runs.
    #[arg(long)]
    refresh: bool,
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Run the commands that come over the virtio-serial port.
    Agent,
    /// Run the demo on this host.
    Demo(DemoArgs),
    /// Run one part of a benchmark on this host.
    #[command(subcommand)]
    Bench(bench::Inside),
    /// Run the inner part of one of the paper's experiments.
    #[command(subcommand)]
    Paper(paper::Inside),
    /// Run one system test on this host.
    System {
        /// Its name.
        name: String,
        /// With model guests.
        #[arg(long)]
        model: bool,
    },
}

impl Task {
    /// Does what the command line says.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Verb::Lab(arguments) => run_lab(&arguments),
            Verb::Image(arguments) => {
                let disk = debian::build(arguments.kernel, arguments.size)?;
                disk.copy_to(&arguments.output).map(|()| ExitCode::SUCCESS)
            }
            Verb::Bench(bench) => bench.run(),
            Verb::Campaign(campaign) => campaign.run(),
            Verb::Paper(arguments) => paper::run(&arguments),
            Verb::Setup(_) => setup().map(|()| ExitCode::SUCCESS),
            Verb::Demo(arguments) => plimsoll_demo::start(&arguments),
            Verb::Test(arguments) => test::run(&arguments),
            Verb::Fuzz(arguments) => fuzz::run(&arguments),
            Verb::Package(arguments) => plimsoll_package::run(&arguments),
            Verb::Book => plimsoll_book::write(),
            Verb::Inside(Inside::Agent) => agent::main().map(|()| ExitCode::SUCCESS),
            Verb::Inside(Inside::Demo(arguments)) => plimsoll_demo::here(&arguments),
            Verb::Inside(Inside::Bench(bench)) => bench.run().map(|()| ExitCode::SUCCESS),
            Verb::Inside(Inside::Paper(paper)) => paper.run().map(|()| ExitCode::SUCCESS),
            Verb::Inside(Inside::System { name, model }) => {
                let guests = if model { Guests::Models } else { Guests::Kernels };
                system::find(&name)?.run(guests).map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

fn run_lab(arguments: &LabArgs) -> Result<ExitCode> {
    let request = Request { argv: arguments.command.clone(), env: Vec::new() };
    if arguments.attach {
        return attach::run(&request).map(exit_code);
    }
    let config = Config {
        kernel: arguments.host.kernel,
        npt: arguments.host.npt == Switch::On,
        memory: arguments.host.memory,
        share: arguments.share.clone(),
        forward: arguments.forward.clone(),
    };
    ensure!(
        config.memory >= Bytes::mib(512),
        "the lab needs 512MiB of memory or more, not {}",
        config.memory
    );
    let programs = workspace::build()?;
    let mut lab = Lab::boot(&config, &programs)?;
    let result = lab.run_shown(&request, Duration::from_secs(arguments.timeout));
    if arguments.console {
        workspace::note(&format!("the lab's console:\n{}", lab.console()));
    }
    let fetched = arguments.artifacts.as_ref().map_or(Ok(()), |directory| lab.fetch("/artifacts", directory));
    // Where both failed, the command's own error is the cause.
    let status = result?;
    fetched?;
    Ok(exit_code(status))
}

/// Our exit status for that of a command in the lab.
fn exit_code(status: i32) -> ExitCode {
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn setup() -> Result<()> {
    packages::ensure(packages::LAB)?;
    packages::ensure(packages::DISK)?;
    for version in Version::ALL {
        Kernel::get(version)?;
    }
    workspace::build().map(drop)
}

/// Reads `HERE:LAB`.
fn forward(text: &str) -> Result<(u16, u16)> {
    let (here, lab) =
        text.split_once(':').context("write two ports with a colon between them, such as 8080:80")?;
    let port = |text: &str| text.parse().with_context(|| format!("{text:?} is no port"));
    Ok((port(here)?, port(lab)?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_manual_is_consistent() {
        Task::command().debug_assert();
    }

    #[test]
    fn readme_and_book_call_it_as_it_is() {
        let lines = plimsoll_book::command_lines().unwrap();
        let ours: Vec<_> =
            lines.iter().filter(|l| l.words.starts_with(&["cargo".into(), "xtask".into()])).collect();
        for line in &ours {
            assert!(
                Task::try_parse_from(&line.words[1..]).is_ok(),
                "{}: {}",
                line.place,
                line.words.join(" ")
            );
        }
        assert!(ours.len() > 7, "only {} were found", ours.len());
    }

    #[test]
    fn ports_are_read_and_nonsense_is_refused() {
        assert_eq!(forward("8080:80").unwrap(), (8080, 80));
        for text in ["80", "a:b", "1:70000", ":"] {
            assert!(forward(text).is_err(), "{text}");
        }
    }

    #[test]
    fn command_lines_that_make_no_sense_are_refused() {
        for line in [
            "",
            "lab",
            "lab true",
            "lab --attach --npt off -- true",
            "demo --model --lab",
            "image",
            "lab --memory little -- x",
            "fuzz --executions 0",
            "fuzz --executions 9 --seconds 9",
            "campaign",
            "campaign kill --points 0",
            "campaign kill --vms 1",
        ] {
            assert!(
                Task::try_parse_from(std::iter::once("xtask").chain(line.split_whitespace())).is_err(),
                "{line}"
            );
        }
    }
}
