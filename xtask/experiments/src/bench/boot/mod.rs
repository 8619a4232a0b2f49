//! What a VM costs before its guest does anything: the time to the guest's first line, and the
//! VMM's own memory.
//!
//! [`run`] boots the lab and starts ours and QEMU's microvm machine in it by turns, each start by a
//! process of its own in the lab: [`mod@inside`].

mod arguments;
mod baseline;
mod clock;
mod console;
mod guest;
mod inside;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use plimsoll_lab::Switch;
use plimsoll_lab::wire::{Kind, Request};
use plimsoll_lab::workspace::{self, note, step};
use plimsoll_lab::{Config, Lab, show};
use preflight::packages::{self, Tool};

use self::inside::{Sample, Vmm};
use self::report::Report;

pub(super) use self::arguments::BootArgs;
pub(super) use self::inside::StartArgs;

/// What tells which libraries QEMU needs.
const TOOLS: &[Tool] = &[Tool { program: "ldd", package: "libc-bin" }];

/// How long one start may take, with everything around it: more than the driver in the lab allows
/// it.
const LIMIT: Duration = Duration::from_secs(900);

/// Measures and reports; fails where a goal is missed.
#[expect(clippy::print_stdout, reason = "the figures are for the person at the terminal")]
pub(super) fn run(arguments: &BootArgs) -> Result<ExitCode> {
    packages::ensure(TOOLS)?;
    packages::ensure(packages::LAB)?;
    let files = tempfile::tempdir().context("making a directory for QEMU's files")?;
    let baseline = baseline::collect(files.path())?;
    let programs = workspace::build()?;
    let config = Config {
        kernel: arguments.host_kernel,
        npt: arguments.npt == Switch::On,
        share: Some(files.path().to_owned()),
        ..Config::default()
    };
    let mut lab = Lab::boot(&config, &programs)?;
    step("one start of each to warm up");
    pair(&mut lab, arguments)?;
    let mut pairs = Vec::new();
    for number in 1..=arguments.runs {
        step(&format!("start {number} of {}", arguments.runs));
        pairs.push(pair(&mut lab, arguments)?);
    }
    let report = Report::new(arguments, baseline, &pairs)?;
    println!("{report}");
    if arguments.json {
        println!("{}", serde_json::to_string(&report).context("writing the figures")?);
    }
    Ok(if report.meets_goals() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One start of ours and then one of the baseline.
fn pair(lab: &mut Lab, arguments: &BootArgs) -> Result<(Sample, Sample)> {
    Ok((start(lab, arguments, Vmm::Ours)?, start(lab, arguments, Vmm::Qemu)?))
}

fn start(lab: &mut Lab, arguments: &BootArgs, vmm: Vmm) -> Result<Sample> {
    let vmm = vmm.to_possible_value().context("a contender without a name")?.get_name().to_owned();
    let kernel = arguments.kernel.to_string();
    let argv = ["xtask", "inside", "bench", "boot", "--vmm", &vmm, "--kernel", &kernel];
    let mut argv = argv.map(str::to_owned).to_vec();
    argv.push(format!("--cmdline={}", arguments.cmdline));
    let mut answer = Vec::new();
    let status = lab.run(&Request { argv, env: Vec::new() }, LIMIT, &mut |kind, bytes| match kind {
        Kind::Out => {
            answer.extend(bytes);
            Ok(())
        }
        _ => show(kind, bytes),
    })?;
    ensure!(status == 0, "starting {vmm} in the lab failed: see its messages above");
    let sample: Sample = serde_json::from_slice(&answer).context("reading the lab's figures")?;
    note(&format!("{vmm}: first line after {:.0} ms", sample.process.as_secs_f64() * 1e3));
    Ok(sample)
}

/// In the lab: one start of one VMM, its figures on standard output.
#[expect(clippy::print_stdout, reason = "the caller reads the figures there")]
pub(super) fn inside(arguments: &StartArgs) -> Result<()> {
    let sample = inside::measure(arguments)?;
    println!("{}", serde_json::to_string(&sample).context("writing the figures")?);
    Ok(())
}
