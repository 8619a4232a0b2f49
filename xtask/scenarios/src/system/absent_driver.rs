//! Two guests without a balloon driver on half the memory that they see: the busy one gets what it
//! uses out of what the idle one does not, by compression and swap alone, and no page of either is
//! lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::toucher::Toucher;
use plimsoll_operate::watch;
use plimsoll_protocol::status::VmStatus;
use plimsoll_units::Bytes;

use crate::guests::Guests;

const SIZE: Bytes = Bytes::mib(256);
/// Half of both sizes, and what their VMMs cost.
const BUDGET: Bytes = Bytes::mib(280);
/// Of 256 MiB a Debian kernel leaves about 190 to programs.
const TOUCHED: Bytes = Bytes::mib(160);
/// How often the busy guest writes and verifies all of it.
const PASSES: usize = 4;
/// How long a guest may take to touch, write or verify its memory, while others must give theirs in
/// emulation.
const LIMIT: Duration = Duration::from_secs(300);
const NAMES: [&str; 2] = ["idle", "busy"];
/// Swap space, and short sampling periods: the idle guest shows as idle within a minute.
const SETTINGS: &str = "sample_period = 10\n[swap]\nsize = \"1GiB\"\n";

pub(super) fn run(kinds: Guests) -> Result<()> {
    let stage = Stage::open_with(BUDGET, SETTINGS)?;
    let result = watch::while_watching(&stage, || guests(&stage, kinds));
    let ((), peaks) = stage.explained(result)?;
    ensure!(peaks.errors.is_empty(), "{}", peaks.errors.join("\n"));
    ensure!(peaks.ledger <= BUDGET, "the ledger went up to {}", peaks.ledger);
    ensure!(peaks.kernel <= BUDGET, "the kernel accounted {}", peaks.kernel);
    ensure!(peaks.ballooned == Bytes::ZERO, "a balloon without a driver had {}", peaks.ballooned);
    Ok(())
}

fn guests(stage: &Stage, kinds: Guests) -> Result<()> {
    for (name, kernel) in NAMES.into_iter().zip([Version::V6_1, Version::V6_12]) {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.balloon_driver = false;
        stage.run(&definition)?;
    }
    let [mut idle, mut busy] = [stage.toucher(NAMES[0])?, stage.toucher(NAMES[1])?];
    note(&format!("the idle guest writes {TOUCHED} and leaves them alone"));
    idle.ask(&format!("touch {} 1", TOUCHED.0), LIMIT)?;
    note(&format!("the busy guest writes {TOUCHED} and works with them"));
    busy.ask(&format!("touch {} 2", TOUCHED.0), LIMIT)?;
    works(stage, &mut busy)?;
    note("both verify all that they wrote");
    for guest in [&mut idle, &mut busy] {
        let right = guest.verify_all(LIMIT)?;
        ensure!(right == TOUCHED.0, "only {right} bytes were verified");
    }
    for (name, mut guest) in NAMES.into_iter().zip([idle, busy]) {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    stage.wait_free().map(drop)
}

/// The busy guest writes and verifies its memory until it has all of it.
fn works(stage: &Stage, busy: &mut Toucher) -> Result<()> {
    for pass in 1..=PASSES {
        busy.ask("rewrite 2", LIMIT)?;
        busy.verify_all(LIMIT)?;
        let [idle, busy] = [stage.vm(NAMES[0])?, stage.vm(NAMES[1])?];
        note(&format!("pass {pass}: {}; {}", account(&idle), account(&busy)));
    }
    stage.wait("the busy guest holds what it uses", LIMIT, |stage| {
        // What it waits for it does not hold, and while it only reads the clock it is not busy.
        busy.verify_all(LIMIT)?;
        let vm = stage.vm(NAMES[1])?;
        Ok((vm.held >= TOUCHED && vm.entitlement >= TOUCHED).then_some(()))
    })
}

fn account(vm: &VmStatus) -> String {
    format!("{} holds {}, is entitled to {}, uses {}", vm.name, vm.held, vm.entitlement, vm.active)
}
