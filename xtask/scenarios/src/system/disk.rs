//! A Debian disk, as its packages come, reaches its login prompt with every virtio device bound by
//! its stock driver.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::{Stage, share};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Bytes;

use crate::guests::Guests;

/// From start to login prompt. Half a minute to a minute are usual in the lab.
const BOOT: Duration = Duration::from_secs(420);
const LIMIT: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(100);

/// Prints a line per virtio device: its type and its driver. The text that is looked for differs
/// from what is typed.
const LOOK: &str = "for d in /sys/bus/virtio/devices/*; do \
    echo \"driver of $(cat $d/device): $(basename $(readlink $d/driver || echo none))\"; done; echo end-of\"-\"list";

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = scenario(&stage);
    stage.explained(result)
}

fn scenario(stage: &Stage) -> Result<()> {
    let share = share();
    let (kernel, initrd, disk) = (share.join("vmlinuz"), share.join("initrd"), share.join("disk"));
    let mut definition = Definition::new("debian", Bytes::mib(512), Runs::Debian { kernel, initrd, disk });
    definition.vcpus = 2;
    let begin = Instant::now();
    stage.run(&definition)?;
    let console = stage.vm("debian")?.console;
    let mut console = Console::attach(&console)?;
    console.expect("login: ", BOOT)?;
    note(&format!("login prompt after {:.0} s", begin.elapsed().as_secs_f64()));
    step("logging in");
    console.type_line("root")?;
    console.expect("# ", LIMIT)?;
    console.type_line(LOOK)?;
    let text = console.expect("end-of-list", LIMIT)?;
    for (kind, driver) in [("0x0002", "virtio_blk"), ("0x0004", "virtio_rng"), ("0x0005", "virtio_balloon")] {
        let wanted = format!("driver of {kind}: {driver}");
        ensure!(text.contains(&wanted), "{wanted:?} is missing in:\n{text}");
    }
    ensure!(!text.contains(": none"), "a device has no driver:\n{text}");
    console.type_line("sync; poweroff")?;
    let exit = stage.wait_off("debian", LIMIT)?.exit;
    ensure!(exit == Some(Exit::Told(ExitReason::Shutdown)), "the shutdown was reported as {exit:?}");
    Ok(())
}

/// The console of a guest with a shell.
struct Console {
    stream: UnixStream,
    pending: String,
}

impl Console {
    fn attach(path: &std::path::Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("attaching to {}", path.display()))?;
        stream.set_read_timeout(Some(TICK))?;
        Ok(Self { stream, pending: String::new() })
    }

    fn type_line(&mut self, line: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("typing {line:?}"))
    }

    /// Reads until `text` has come, and returns everything up to its end.
    fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.pending.find(text) {
                return Ok(self.pending.drain(..at + text.len()).collect());
            }
            ensure!(Instant::now() < deadline, "{text:?} did not come within {} s", limit.as_secs());
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the console was closed while waiting for {text:?}"),
                Ok(count) => self.pending += &String::from_utf8_lossy(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).context("reading the console"),
            }
        }
    }
}
