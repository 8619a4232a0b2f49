//! One start of one VMM, in the lab: from the command that starts it to the guest's first line.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use plimsoll_lab::kernel::Version;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::toucher_image;
use plimsoll_operate::smaps::account;
use plimsoll_protocol::definition::{Boot, Disk, VmDefinition};
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::baseline;
use super::clock::{process_start, since_boot};
use super::console::Console;
use super::guest::Guest;

/// The guests' memory.
pub(super) const SIZE: Bytes = Bytes::mib(256);

/// The guests' disk, empty.
const DISK: Bytes = Bytes::mib(16);

/// What the daemon may spend: one guest must not feel a budget here.
const BUDGET: Bytes = Bytes::mib(1024);

/// The first line of the guest's init, after it has loaded its drivers.
const FIRST_LINE: &str = "init: user space is up";

/// What the guest says last: from here on it waits, and memory stands still.
const LAST_LINE: &str = "toucher: ready";

/// How long a guest may take to its last line. Ten seconds are usual, and several times that on a
/// loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Name of our VM.
const NAME: &str = "bench";

/// What to start.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Which VMM.
    #[arg(long)]
    vmm: Vmm,
    /// The guest's kernel.
    #[arg(long)]
    kernel: Version,
    /// Its command line.
    #[arg(long)]
    cmdline: String,
}

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Vmm {
    /// `plimsoll-vmm`, started by `plimsoll run`.
    Ours,
    /// QEMU's microvm machine.
    Qemu,
}

/// What one start showed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sample {
    /// From the start of the VMM's process to the guest's first line.
    pub(super) process: Duration,
    /// From the start of the command that a person types to the guest's first line. The same for
    /// QEMU.
    pub(super) command: Duration,
    /// The VMM's resident memory outside guest memory.
    pub(super) outside: Bytes,
    /// The part of it that no other process can share.
    pub(super) private: Bytes,
}

/// Starts the VMM and measures it.
pub(super) fn measure(arguments: &StartArgs) -> Result<Sample> {
    let directory = TempDir::with_prefix("bench-").context("making a directory")?;
    let (kernel, initrd) = toucher_image(arguments.kernel)?;
    let disk = directory.path().join("disk.raw");
    File::create(&disk)?.set_len(DISK.0)?;
    let guest = Guest { kernel, initrd, cmdline: arguments.cmdline.clone(), size: SIZE, disk };
    match arguments.vmm {
        Vmm::Ours => ours(guest),
        Vmm::Qemu => qemu(&guest, directory.path()),
    }
}

fn ours(guest: Guest) -> Result<Sample> {
    let stage = Stage::open(BUDGET)?;
    let file = stage.path().join("bench.toml");
    fs::write(&file, toml::to_string(&definition(guest)?).context("writing a definition")?)?;
    let mut console = Console::new(stage.path().join(format!("state/logs/{NAME}.console")));
    let file = file.display().to_string();
    let mut command = stage.command(&["run", &file])?;
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = since_boot();
    let mut run = command.spawn().context("starting plimsoll run")?;
    let first = console.wait(FIRST_LINE, LIMIT, &mut || succeeds(&mut run))?;
    console.wait(LAST_LINE, LIMIT, &mut || Ok(()))?;
    let pid = stage.vm(NAME)?.pid.context("the VM is off")?;
    sample(pid, first, begin)
}

/// An error once `run` has failed.
fn succeeds(run: &mut Child) -> Result<()> {
    match run.try_wait()? {
        Some(status) if !status.success() => {
            let mut why = String::new();
            if let Some(mut messages) = run.stderr.take() {
                std::io::Read::read_to_string(&mut messages, &mut why)?;
            }
            bail!("plimsoll run: {status}: {}", why.trim())
        }
        _ => Ok(()),
    }
}

fn definition(guest: Guest) -> Result<VmDefinition> {
    let Guest { kernel, initrd, cmdline, size, disk } = guest;
    let name = NAME.parse().context("the VM's name")?;
    let boot = Boot { kernel: Some(kernel), initrd: Some(initrd), cmdline, ..Boot::default() };
    let disk = Disk { read_only: true, ..Disk::new(disk) };
    Ok(VmDefinition { reservation: size, disks: vec![disk], ..VmDefinition::new(name, size, boot) })
}

/// A process that ends with its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already dead is as good; the wait afterwards cannot block on a killed child.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn qemu(guest: &Guest, directory: &Path) -> Result<Sample> {
    let path = directory.join("console");
    let messages = directory.join("messages");
    let mut command = baseline::command(guest, &path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&messages)?);
    let mut console = Console::new(path);
    let begin = since_boot();
    let mut child = Killed(command.spawn().context("starting QEMU")?);
    let pid = child.0.id();
    let mut lives = || {
        let ended = child.0.try_wait()?;
        let why = || fs::read_to_string(&messages).unwrap_or_default();
        ensure!(ended.is_none(), "QEMU ended: {}", why().trim());
        Ok(())
    };
    let first = console.wait(FIRST_LINE, LIMIT, &mut lives)?;
    console.wait(LAST_LINE, LIMIT, &mut lives)?;
    sample(pid, first, begin)
}

/// The sample of process `pid`, whose guest said its first line at `first` after the command at
/// `begin`.
fn sample(pid: u32, first: Duration, begin: Duration) -> Result<Sample> {
    let account = account(pid, SIZE)?.with_context(|| format!("process {pid} is gone"))?;
    ensure!(account.guest > Bytes::ZERO, "no mapping of process {pid} looks like guest memory of {SIZE}");
    Ok(Sample {
        process: first.saturating_sub(process_start(pid)?),
        command: first.saturating_sub(begin),
        outside: account.rest,
        private: account.private,
    })
}
