//! Swap space that fails: a VM whose pages cannot be written goes on without, one whose pages
//! cannot be read back is stopped, and both say so. The others notice nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::agreement;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::standstill::Standstill;
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::{Exit, Power, VmStatus};
use plimsoll_units::Bytes;

use crate::guests::Guests;
use crate::io_uring::NoIoUring;
use plimsoll_operate::swap_space::SwapSpace;
use plimsoll_operate::tmpfs::Full;

/// The first cannot write any more, the second cannot read, the third is well.
const NAMES: [&str; 3] = ["full", "torn", "well"];
const SIZE: Bytes = Bytes::mib(192);
const TOUCHED: Bytes = Bytes::mib(96);
const SEED: u64 = 1;
/// Room for all: each VM has a limit of its own to swap for.
const BUDGET: Bytes = Bytes::mib(704);
const SWAP: Bytes = Bytes::mib(640);
/// What a VM at its limit has elsewhere than in its own memory before swap space fails, at least.
const SWAPPED: Bytes = Bytes::mib(16);
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let swap = SwapSpace::new(SWAP)?;
    let _no_ring = NoIoUring::now()?;
    // What is compressed needs no swap space.
    let settings = format!("largest_balloon = 1\nlargest_store = 0\n{}", swap.setting());
    let stage = Stage::open_with(BUDGET, &settings)?;
    let result = scenario(&stage, &swap, kinds);
    stage.explained(result)
}

fn scenario(stage: &Stage, swap: &SwapSpace, kinds: Guests) -> Result<()> {
    for (name, kernel) in NAMES.into_iter().zip([Version::V6_12, Version::V6_1, Version::V6_12]) {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.balloon_driver = false;
        stage.run(&definition)?;
    }
    let mut guests = NAMES.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<_>>>()?;
    for (name, guest) in NAMES.iter().zip(&mut guests) {
        guest.ask(&format!("touch {} {SEED}", TOUCHED.0), LIMIT)?;
        let held = stage.wait(&format!("{name} holds what it wrote"), LIMIT, |stage| {
            Ok(Some(stage.vm(name)?.held).filter(|held| *held >= TOUCHED))
        })?;
        let limit = held.saturating_sub(SWAPPED + SWAPPED);
        stage.facts::<VmStatus>(&["set", name, "--limit", &limit.0.to_string()])?;
    }
    for name in NAMES {
        stage.wait(&format!("{name} swaps"), LIMIT, |stage| Ok(swaps(&stage.vm(name)?).then_some(())))?;
    }
    let [mut full, torn, mut well] = <[Toucher; 3]>::try_from(guests).ok().expect("as many as names");
    let _full = cannot_write(stage, swap, &mut full)?;
    cannot_read(stage, swap, torn)?;
    for guest in [&mut full, &mut well] {
        guest.ask(&format!("rewrite {SEED}"), LIMIT)?;
        let right = guest.verify_all(LIMIT)?;
        ensure!(right == TOUCHED.0, "only {right} bytes were verified");
    }
    let third = stage.vm(NAMES[2])?;
    ensure!(!third.paging.failed && swaps(&third), "the third is not well: {third:?}");
    agreement::wait_for_agreement(stage, LIMIT)?;
    for (name, mut guest) in [(NAMES[0], full), (NAMES[2], well)] {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    let host = stage.wait_free()?;
    ensure!(host.swap_reserved == Bytes::ZERO, "{} of swap space are still promised", host.swap_reserved);
    Ok(())
}

/// Whether a VM has pages in its swap space, and with those that are zero or shared enough
/// elsewhere than in its own memory. How many of each there are depends on what scans find first.
fn swaps(vm: &VmStatus) -> bool {
    let swapped = vm.paging.swapped;
    swapped > Bytes::ZERO && swapped + vm.sharing.saved >= SWAPPED
}

/// What was set aside for a VM is not there when it is to be written, as on a disk that promised
/// more than it has. It stays so until the result is dropped.
fn cannot_write(stage: &Stage, swap: &SwapSpace, guest: &mut Toucher) -> Result<Full> {
    note("one VM's swap space cannot be written any more");
    let name = NAMES[0];
    let vm = stage.vm(name)?;
    let pid = vm.pid.unwrap_or_default();
    let still = Standstill::of(pid)?;
    swap.file_of(pid)?.lose_unwritten()?;
    let full = swap.fill()?;
    drop(still);
    // It needs more of it now.
    let limit = vm.limit.saturating_sub(SWAPPED + SWAPPED);
    stage.facts::<VmStatus>(&["set", name, "--limit", &limit.0.to_string()])?;
    guest.send(&format!("rewrite {SEED}"))?;
    stage
        .wait("its swap space has failed", LIMIT, |stage| Ok(stage.vm(name)?.paging.failed.then_some(())))?;
    says(stage, &["explain", name], "its swap space could not be written and is no longer used")?;
    says(stage, &["events"], "swap space has failed: ")?;
    note("it has all its content, and goes on as soon as it may have as much memory as it uses");
    stage.facts::<VmStatus>(&["set", name, "--limit", "none"])?;
    guest.receive(&format!("rewrite {SEED}"), LIMIT)?;
    let right = guest.verify_all(LIMIT)?;
    ensure!(right == TOUCHED.0, "only {right} bytes were verified");
    ensure!(stage.vm(name)?.power == Power::On, "{name} did not survive");
    Ok(full)
}

/// What a VM wrote cannot be read back.
fn cannot_read(stage: &Stage, swap: &SwapSpace, mut guest: Toucher) -> Result<()> {
    note("another VM's swap space cannot be read any more");
    let name = NAMES[1];
    let pid = stage.vm(name)?.pid.unwrap_or_default();
    swap.file_of(pid)?.lose()?;
    guest.send("verify")?;
    let vm = stage.wait_off(name, LIMIT)?;
    let why = "guest memory could not be read back";
    let told = matches!(&vm.exit, Some(Exit::Told(ExitReason::Failed(text))) if text.starts_with(why));
    ensure!(told, "its end was reported as {:?}", vm.exit);
    ensure!(vm.grant == Bytes::ZERO && vm.overhead == Bytes::ZERO, "its memory is not back: {vm:?}");
    says(stage, &["show", name], why)?;
    says(stage, &["explain", name], why)?;
    says(stage, &["events"], why)
}

/// What `plimsoll` prints must contain `what`.
fn says(stage: &Stage, arguments: &[&str], what: &str) -> Result<()> {
    let output = stage.plimsoll(arguments)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains(what), "plimsoll {} does not say {what:?}:\n{said}", arguments.join(" "));
    Ok(())
}
