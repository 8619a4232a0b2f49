//! Other programs take memory that VMs were promised: what is divided shrinks, all guests give, by
//! balloon or by paging, and none dies. When it comes back they have it again.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::agreement;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::smaps;
use plimsoll_operate::toucher::Toucher;
use plimsoll_operate::{Stage, in_lab};
use plimsoll_protocol::status::{HostStatus, Power};
use plimsoll_units::Bytes;
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use crate::guests::Guests;
use plimsoll_operate::swap_space::SwapSpace;

/// One gives through its balloon, one through nothing but paging.
const NAMES: [&str; 2] = ["follows", "paged"];
const SIZE: Bytes = Bytes::mib(256);
const TOUCHED: Bytes = Bytes::mib(96);
const SEED: u64 = 1;
const BUDGET: Bytes = Bytes::mib(448);
const SWAP: Bytes = Bytes::mib(576);
/// What others leave the machine: 64 MiB less than the daemon keeps free of a machine of 3 GiB, so
/// that guests have to give as much. With less, the kernel would look for a process to kill.
const LEFT: Bytes = Bytes::mib(112);
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let swap = SwapSpace::new(SWAP)?;
    let settings = format!("sample_period = 5\n{}", swap.setting());
    let stage = Stage::open_with(BUDGET, &settings)?;
    let result = scenario(&stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &Stage, kinds: Guests) -> Result<()> {
    for name in NAMES {
        let mut definition = Definition::new(name, SIZE, kinds.run(Version::V6_12));
        definition.balloon_driver = name == NAMES[0];
        // Only its balloon gets back what it has freed.
        definition.reports_free_pages = false;
        stage.run(&definition)?;
    }
    let mut guests = NAMES.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<_>>>()?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} {SEED}", TOUCHED.0), LIMIT)?;
    }
    // It can give without paging.
    guests[0].ask(&format!("touch {} 2", Bytes::mib(32).0), LIMIT)?;
    guests[0].ask("free 2", LIMIT)?;
    let before = stage.host()?;
    ensure!(before.taken == Bytes::ZERO && before.budget == BUDGET, "{before:?}");
    let hog = Hog::until_left(LEFT)?;
    note(&format!("another program has taken {}", hog.taken));
    let spent = |host: &HostStatus| host.granted + host.overhead + host.frames;
    // The daemon looks at the machine's memory each second, and may have seen a part of it taken.
    let host = stage.wait("guests have given what the machine lacks", LIMIT, |stage| {
        let host = stage.host()?;
        let fits = host.taken > Bytes::ZERO && host.budget + host.taken == BUDGET;
        Ok((fits && spent(&host) < before.granted + before.overhead).then_some(host))
    })?;
    note(&format!("{} are left to divide, {} of {} are in use", host.budget, spent(&host), spent(&before)));
    says(stage, "of the budget is used by other programs on this host")?;
    all_well(stage, &mut guests)?;
    let host = stage.host()?;
    ensure!(host.granted + host.overhead + host.frames + host.free == host.budget, "{host:?}");
    drop(hog);
    note("it gives it back");
    stage.wait("the whole budget is there again", LIMIT, |stage| {
        let host = stage.host()?;
        Ok((host.taken == Bytes::ZERO && host.budget == BUDGET).then_some(()))
    })?;
    says(stage, "the whole budget can be used again")?;
    all_well(stage, &mut guests)?;
    stage.wait("every guest has as much as it uses", LIMIT, |stage| {
        // What it waits for it does not hold, and what it does not touch it does not get back.
        guests.iter_mut().try_for_each(|guest| guest.verify_all(LIMIT).map(drop))?;
        Ok(stage.vms()?.iter().all(|vm| vm.held >= TOUCHED).then_some(()))
    })?;
    agreement::wait_for_agreement(stage, LIMIT)?;
    for (name, mut guest) in NAMES.into_iter().zip(guests) {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    stage.wait_free().map(drop)
}

/// Every guest runs, can write, and has lost nothing.
fn all_well(stage: &Stage, guests: &mut [Toucher]) -> Result<()> {
    for (name, guest) in NAMES.iter().zip(guests) {
        guest.ask(&format!("rewrite {SEED}"), LIMIT)?;
        let right = guest.verify_all(LIMIT)?;
        ensure!(right == TOUCHED.0, "only {right} bytes of {name} were verified");
        ensure!(stage.vm(name)?.power == Power::On, "{name} did not survive");
    }
    Ok(())
}

/// What happened must contain `what`.
fn says(stage: &Stage, what: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&stage.plimsoll(&["events"])?.stdout).into_owned();
    ensure!(said.contains(what), "no event says {what:?}:\n{said}");
    Ok(())
}

/// Memory that no other program can have: files in memory, in a file system of their own. It is
/// free again when this is dropped.
struct Hog {
    directory: TempDir,
    taken: Bytes,
}

impl Hog {
    /// Takes memory until the machine has only `left` available.
    fn until_left(left: Bytes) -> Result<Self> {
        ensure!(in_lab(), "no machine's memory is taken that others use");
        let taken = available()?.saturating_sub(left);
        let directory = tempfile::Builder::new().prefix("plimsoll-hog-").tempdir()?;
        rustix::mount::mount("hog", directory.path(), "tmpfs", MountFlags::empty(), c"size=100%")
            .context("mounting a file system in memory")?;
        let hog = Self { directory, taken };
        let file = File::create(hog.directory.path().join("hog"))?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, taken.0).context("taking memory")?;
        Ok(hog)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // Nothing in it is open.
        rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH).ok();
    }
}

/// What the machine's kernel says that programs could still have.
fn available() -> Result<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(smaps::kib).context("/proc/meminfo has no MemAvailable")
}
