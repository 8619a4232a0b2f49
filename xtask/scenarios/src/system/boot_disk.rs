//! A Debian disk boots what its own GRUB's configuration says (`boot.from = "disk"`). Its guest
//! chooses another entry, and that is what boots when it reboots in place.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::{Stage, share};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Bytes;

use super::disk::BOOT;
use crate::console::{Console, LOGIN};
use crate::guests::Guests;

const NAME: &str = "boot-disk";
const LIMIT: Duration = Duration::from_secs(180);

/// The word on the command line of the disk's second entry.
const ADVANCED: &str = "plimsoll.entry=advanced";

/// Makes the second entry the default, as `grub-set-default` does: it has 1024 bytes.
const CHOOSE: &str = "u=$(findmnt -no UUID /) r=$(uname -r); \
    { echo '# GRUB Environment Block'; echo \"saved_entry=gnulinux-advanced-$u>gnulinux-$r-advanced-$u\"; \
    head -c 1024 /dev/zero | tr '\\0' '#'; } | head -c 1024 >/boot/grub/grubenv";

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = scenario(&stage);
    stage.explained(result)
}

fn scenario(stage: &Stage) -> Result<()> {
    let mut definition = Definition::new(NAME, Bytes::mib(512), Runs::Disk(share().join("disk")));
    definition.kernel_words = Some(LOGIN.to_owned());
    stage.run(&definition)?;
    let mut console = Console::attach(&stage.vm(NAME)?.console)?;
    let cmdline = logged_in(&mut console)?;
    ensure!(cmdline.contains("BOOT_IMAGE=/boot/vmlinuz-"), "no entry of GRUB's was booted:\n{cmdline}");
    ensure!(!cmdline.contains(ADVANCED), "the disk's first entry was not booted:\n{cmdline}");

    step("the guest chooses the other entry and reboots");
    console.ask(CHOOSE, LIMIT)?;
    console.type_line("reboot")?;
    stage.wait("the reboot is counted", LIMIT, |stage| Ok((stage.vm(NAME)?.reboots == 1).then_some(())))?;
    let cmdline = logged_in(&mut console).context("after the reboot")?;
    ensure!(cmdline.contains(ADVANCED), "the entry that the guest chose was not booted:\n{cmdline}");

    console.type_line("poweroff")?;
    let exit = stage.wait_off(NAME, LIMIT)?.exit;
    ensure!(exit == Some(Exit::Told(ExitReason::Shutdown)), "the shutdown was reported as {exit:?}");
    Ok(())
}

/// Waits for the guest's login prompt, logs in as root, and returns its kernel's command line, with
/// what was typed before it.
fn logged_in(console: &mut Console) -> Result<String> {
    let begin = Instant::now();
    console.expect("login: ", BOOT)?;
    note(&format!("login prompt after {:.0} s", begin.elapsed().as_secs_f64()));
    console.type_line("root")?;
    console.expect("# ", LIMIT)?;
    console.ask("cat /proc/cmdline", LIMIT)
}
