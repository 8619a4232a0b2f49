//! A disk's own system under QEMU, once, so that its programs find the disk as a block device.

use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use preflight::program;

use crate::prctl;

/// Half a minute is usual: no system starts, only a few programs run.
const LIMIT: Duration = Duration::from_secs(600);
const TICK: Duration = Duration::from_millis(100);

/// Boots `kernel` and `initrd` with `cmdline` and the raw disk `disk`, waits until the machine
/// restarts, panics or turns off, and returns what was written to its console.
///
/// # Errors
/// QEMU is not there or fails, or does not end in time; the console is in the error.
pub(super) fn boot_once(kernel: &Path, initrd: &Path, disk: &Path, cmdline: &str) -> Result<String> {
    let program = program::find("qemu-system-x86_64").context("QEMU not found: install qemu-system-x86")?;
    let mut console = tempfile::tempfile().context("making the console's file")?;
    let mut command = Command::new(program);
    command.args(["-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "1024"]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-serial", "stdio", "-append", cmdline]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    command.arg("-drive").arg(format!("file={},if=virtio,format=raw,cache=unsafe", disk.display()));
    command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console.try_clone()?);
    prctl::die_with_parent(&mut command, Vec::new());
    let mut qemu = Running(command.spawn().context("starting qemu-system-x86_64")?);
    let deadline = Instant::now() + LIMIT;
    let ended = loop {
        match qemu.0.try_wait().context("waiting for qemu-system-x86_64")? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => break None,
            None => thread::sleep(TICK),
        }
    };
    let mut text = Vec::new();
    console.rewind()?;
    console.read_to_end(&mut text).context("reading the console")?;
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let status = ended.with_context(|| format!("it did not end in {} s:\n{text}", LIMIT.as_secs()))?;
    ensure!(status.success(), "QEMU ended with {status}:\n{text}");
    Ok(text)
}

/// A process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already dead is as good; the wait afterwards cannot block on a killed child.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
