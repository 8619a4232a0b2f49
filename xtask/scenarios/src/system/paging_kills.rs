//! `kill -9` in the midst of paging: of the daemon, which costs no VM anything, and of a VMM,
//! which costs its VM only. Memory, swap space and grants are back afterwards, and no page is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::agreement;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;
use rustix::process::Signal;

use crate::guests::Guests;
use plimsoll_operate::swap_space::SwapSpace;

const NAMES: [&str; 3] = ["one", "two", "three"];
const KERNELS: [Version; 3] = [Version::V6_1, Version::V6_12, Version::V6_12];
const SIZE: Bytes = Bytes::mib(128);
/// What each guest writes again and again.
const TOUCHED: Bytes = Bytes::mib(48);
/// The seed of that.
const SEED: u64 = 1;
const SWAP: Bytes = Bytes::mib(448);
/// What shows that paging is under way.
const FELT: Bytes = Bytes::mib(4);
const LIMIT: Duration = Duration::from_secs(240);
/// How long the successor's facts may take to be as fresh as the kernel's.
const SETTLE: Duration = Duration::from_secs(30);
/// The ledger promises a second. Emulation with other guests at work takes several, and only a leak
/// takes this long.
const BACK_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let swap = SwapSpace::new(SWAP)?;
    // With the 45 MiB of each kernel that is a third more than there is.
    let budget = if kinds == Guests::Models { Bytes::mib(144) } else { Bytes::mib(248) };
    // Balloons as good as none: compression and swap have to bring it.
    let settings = format!("largest_balloon = 1\nsample_period = 5\n{}", swap.setting());
    let mut stage = Stage::open_with(budget, &settings)?;
    let result = scenario(&mut stage, &swap, kinds);
    stage.explained(result)
}

fn scenario(stage: &mut Stage, swap: &SwapSpace, kinds: Guests) -> Result<()> {
    let all_free = swap.free()?;
    let mut guests = start(stage, kinds)?;
    daemon(stage, swap, &mut guests)?;
    vmm(stage, swap, guests)?;
    let host = stage.wait_free()?;
    ensure!(host.swap_reserved == Bytes::ZERO, "{} of swap space are still promised", host.swap_reserved);
    swap_is_back(stage, swap, all_free)
}

/// Waits until that much is free to swap to. The kernel gives a VM's file back a moment after the
/// process that used it has ended.
fn swap_is_back(stage: &Stage, swap: &SwapSpace, free: Option<Bytes>) -> Result<()> {
    let back =
        stage.wait("the swap space is back", BACK_WITHIN, |_| Ok((swap.free()? == free).then_some(())));
    back.with_context(|| format!("of {free:?} swap space {:?} are free", swap.free()))
}

/// Guests that together have written more than there is machine memory.
fn start(stage: &Stage, kinds: Guests) -> Result<Vec<Toucher>> {
    for (name, kernel) in NAMES.into_iter().zip(KERNELS) {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.balloon_driver = false;
        stage.run(&definition)?;
    }
    let mut guests = NAMES.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<_>>>()?;
    all(&mut guests, &format!("touch {} {SEED}", TOUCHED.0))?;
    Ok(guests)
}

/// Has all guests do the same at once.
fn all(guests: &mut [Toucher], command: &str) -> Result<()> {
    guests.iter_mut().try_for_each(|guest| guest.send(command))?;
    guests.iter_mut().try_for_each(|guest| guest.receive(command, LIMIT).map(drop))
}

/// All that guests wrote is there.
fn verified(guests: &mut [Toucher]) -> Result<()> {
    guests.iter_mut().try_for_each(|guest| guest.send("verify"))?;
    for guest in guests {
        let answer = guest.receive("verify", LIMIT)?;
        let (bytes, mismatched) = (answer.number("bytes")?, answer.number("mismatched")?);
        ensure!(
            bytes == TOUCHED.0 && mismatched == 0,
            "a guest did not verify all that it wrote: {answer:?}"
        );
    }
    Ok(())
}

/// Has all guests write their memory again and again while `work` is done; then what became of
/// each.
fn churning<T>(guests: &mut [Toucher], work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Result<()>>)> {
    let over = AtomicBool::new(false);
    let write = |guest: &mut Toucher| {
        while !over.load(Ordering::Relaxed) {
            guest.ask(&format!("rewrite {SEED}"), LIMIT)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = guests.iter_mut().map(|guest| scope.spawn(|| write(guest))).collect();
        let result = work();
        over.store(true, Ordering::Relaxed);
        let ends =
            writers.into_iter().map(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?);
        let ends = ends.collect();
        Ok((result?, ends))
    })
}

/// Returns when every VM has paged out some more, and so is in the midst of it.
fn paging(stage: &Stage) -> Result<()> {
    let before = stage.vms()?;
    let now = stage.wait("pages of guests that write come and go", LIMIT, |stage| {
        let now = stage.vms()?;
        let pages = now.iter().zip(&before).all(|(now, before)| swapped_since(now, before) >= FELT);
        Ok(pages.then_some(now))
    })?;
    let out = now.iter().map(|vm| format!("{} of {}", vm.paging.swapped_out, vm.name));
    note(&format!("swapped out so far: {}", out.collect::<Vec<_>>().join(", ")));
    Ok(())
}

/// How much has been written to swap space since.
fn swapped_since(now: &VmStatus, before: &VmStatus) -> Bytes {
    now.paging.swapped_out.saturating_sub(before.paging.swapped_out)
}

/// The daemon is killed while VMs page. They go on, and its successor knows what is theirs.
fn daemon(stage: &mut Stage, swap: &SwapSpace, guests: &mut [Toucher]) -> Result<()> {
    let before = (stage.vms()?, stage.host()?.swap_reserved, swap.free()?);
    let ((), ends) = churning(guests, || {
        paging(stage)?;
        stage.kill_daemon()
    })?;
    ends.into_iter().collect::<Result<()>>().context("while no daemon runs")?;
    note("the daemon was killed, and all goes on; it comes back");
    verified(guests).context("while no daemon runs")?;
    stage.start_daemon()?;
    let after = (stage.vms()?, stage.host()?.swap_reserved, swap.free()?);
    for (before, after) in before.0.iter().zip(&after.0) {
        let name = &before.name;
        ensure!(after.pid == before.pid, "{name} had process {:?}, and now {:?}", before.pid, after.pid);
        let (had, has) = (before.paging.space, after.paging.space);
        ensure!(has == SIZE && had == has, "{name} had swap space of {had}, and now {has}");
    }
    ensure!(after.1 == before.1, "{} of swap space were promised, and now {}", before.1, after.1);
    ensure!(after.2 == before.2, "of the swap space {:?} were free, and now {:?}", before.2, after.2);
    agreement::wait_for_agreement(stage, SETTLE)?;
    note("its ledger is what the kernel reports, and paging goes on");
    let ((), ends) = churning(guests, || paging(stage)).context("after the daemon came back")?;
    ends.into_iter().collect::<Result<()>>()?;
    verified(guests)
}

/// The VMM of the second is killed while VMs page.
fn vmm(stage: &Stage, swap: &SwapSpace, mut guests: Vec<Toucher>) -> Result<()> {
    note("a VMM is killed");
    let name = NAMES[1];
    let (promised, free) = (stage.host()?.swap_reserved, swap.free()?);
    let (before, ends) = churning(&mut guests, || {
        paging(stage)?;
        let before = stage.vm(name)?;
        stage.signal(name, Signal::KILL)?;
        let begin = Instant::now();
        stage.wait("the VM is off, and its memory is back", BACK_WITHIN, |stage| {
            let (vm, host) = (stage.vm(name)?, stage.host()?);
            let memory = vm.power == Power::Off && vm.grant == Bytes::ZERO && vm.overhead == Bytes::ZERO;
            let space = promised.saturating_sub(host.swap_reserved) == before.paging.space;
            Ok((memory && space).then_some(()))
        })?;
        swap_is_back(stage, swap, free.map(|free| free + before.paging.space))?;
        let (grant, space) = (before.grant, before.paging.space);
        note(&format!(
            "{grant} and swap space of {space} were back after {} ms",
            begin.elapsed().as_millis()
        ));
        Ok(before)
    })?;
    ensure!(ends[1].is_err(), "a guest whose VMM was killed went on");
    drop(guests.remove(1));
    ends.into_iter().enumerate().filter(|(index, _)| *index != 1).try_for_each(|(_, end)| end)?;
    verified(&mut guests)?;
    agreement::wait_for_agreement(stage, SETTLE)?;
    // There is swap space for it again.
    stage.facts::<serde_json::Value>(&["start", name])?;
    let again = stage.toucher(name)?;
    ensure!(stage.vm(name)?.paging.space == before.paging.space, "it came back without its swap space");
    verified(&mut guests)?;
    guests.insert(1, again);
    for (name, mut guest) in NAMES.into_iter().zip(guests) {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    Ok(())
}
