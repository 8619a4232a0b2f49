//! A Debian disk, as its packages come, reaches its login prompt with every virtio device bound by
//! its stock driver.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::{Stage, share};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Bytes;

use crate::console::{Console, LOGIN};
use crate::guests::Guests;

/// From start to login prompt. Half a minute to a minute are usual in the lab.
pub(super) const BOOT: Duration = Duration::from_secs(420);
const LIMIT: Duration = Duration::from_secs(180);

/// Prints a line per virtio device: its type and its driver.
const LOOK: &str = "for d in /sys/bus/virtio/devices/*; do \
    echo \"driver of $(cat $d/device): $(basename $(readlink $d/driver || echo none))\"; done";

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = scenario(&stage);
    stage.explained(result)
}

fn scenario(stage: &Stage) -> Result<()> {
    let share = share();
    let (kernel, initrd, disk) = (share.join("vmlinuz"), share.join("initrd"), share.join("disk"));
    let mut definition = Definition::new("debian", Bytes::mib(512), Runs::Debian { kernel, initrd, disk });
    (definition.vcpus, definition.kernel_words) = (2, Some(LOGIN.to_owned()));
    let begin = Instant::now();
    stage.run(&definition)?;
    let console = stage.vm("debian")?.console;
    let mut console = Console::attach(&console)?;
    console.expect("login: ", BOOT)?;
    note(&format!("login prompt after {:.0} s", begin.elapsed().as_secs_f64()));
    step("logging in");
    console.type_line("root")?;
    console.expect("# ", LIMIT)?;
    let text = console.ask(LOOK, LIMIT)?;
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
