//! `kill -9` of the daemon: guests go on; its successor finds them, and its ledger is what the
//! kernel reports.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_operate::Stage;
use plimsoll_operate::agreement;
use plimsoll_operate::definition::Definition;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;

use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(240);
/// How long the successor may take until its facts are as fresh as the kernel's: its VMMs report
/// every second.
const SETTLE: Duration = Duration::from_secs(30);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let mut stage = Stage::open(Bytes::mib(640))?;
    let result = scenario(&mut stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &mut Stage, kinds: Guests) -> Result<()> {
    let names = ["one", "two", "three"];
    for (name, kernel) in names.into_iter().zip([Version::V6_1, Version::V6_12, Version::V6_12]) {
        stage.run(&Definition::new(name, Bytes::mib(256), kinds.run(kernel)))?;
    }
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<_>>>()?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} 5", Bytes::mib(48).0), LIMIT)?;
    }
    let before = stage.vms()?;
    stage.kill_daemon()?;
    // The consoles are the VMMs' own.
    for guest in &mut guests {
        guest.verify_all(LIMIT).context("while no daemon runs")?;
    }
    stage.start_daemon()?;
    let after: Vec<VmStatus> = stage.facts(&["ps"])?;
    for vm in &before {
        let again = after.iter().find(|again| again.name == vm.name);
        let again = again.with_context(|| format!("the new daemon does not list {}", vm.name))?;
        ensure!(again.pid == vm.pid, "{} had process {:?}, and now {:?}", vm.name, vm.pid, again.pid);
    }
    agreement::wait_for_agreement(stage, SETTLE)?;
    for vm in stage.vms()? {
        ensure!(vm.power == Power::On, "{} did not survive: {:?}", vm.name, vm.exit);
    }
    for guest in &mut guests {
        // Grants flow again: this is more than a guest got before.
        guest.ask(&format!("touch {} 6", Bytes::mib(64).0), LIMIT)?;
        guest.verify_all(LIMIT)?;
        guest.ask("free 6", LIMIT)?;
    }
    for (name, mut guest) in names.into_iter().zip(guests) {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    let host = stage.host()?;
    ensure!(host.granted == Bytes::ZERO && host.overhead == Bytes::ZERO, "{} stayed granted", host.granted);
    Ok(())
}
