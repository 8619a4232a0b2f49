//! Shares, reservations, limits and pools move memory at run time, and `plimsoll explain` agrees
//! with the ledger to the page.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::smaps;
use plimsoll_operate::standstill::Standstill;
use plimsoll_operate::toucher::Toucher;
use plimsoll_protocol::explain::{Cause, HostExplanation, VmExplanation};
use plimsoll_protocol::status::{PoolStatus, VmStatus};
use plimsoll_units::Bytes;

use crate::guests::Guests;

const SIZE: Bytes = Bytes::mib(256);
/// Less than the three guests' sizes, so that what one gets another gives.
const BUDGET: Bytes = Bytes::mib(640);
const NAMES: [&str; 3] = ["one", "two", "three"];
const LIMIT: Duration = Duration::from_secs(240);
/// How long the host may take to stand still for a moment, in which all its answers must agree.
const MOMENT: Duration = Duration::from_secs(60);
/// What a VMM may hold above what its balloon leaves: chunks kept for the next fault.
const SLACK: Bytes = Bytes::mib(8);
/// A change smaller than this could be chance.
const FELT: Bytes = Bytes::mib(24);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let mut stage = Stage::open(BUDGET)?;
    let result = scenario(&mut stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &mut Stage, kinds: Guests) -> Result<()> {
    let mut guests = start(stage, kinds)?;
    // Of 256 MiB a Debian kernel leaves about 190 to programs.
    let touched = if kinds == Guests::Models { Bytes::mib(240) } else { Bytes::mib(165) };
    for guest in &mut guests {
        // It sits on what it has freed: only its balloon gets it back.
        guest.ask(&format!("touch {} 1", touched.0), LIMIT)?;
        guest.ask("free 1", LIMIT)?;
    }
    agrees(stage)?;
    shares(stage, &mut guests, touched)?;
    limit(stage, &mut guests, touched)?;
    reservation(stage, &mut guests, touched)?;
    pools(stage)?;
    note("the daemon is killed and comes back");
    let (pools, vms) = (stage.facts::<Vec<PoolStatus>>(&["pool", "ls"])?, stage.vms()?);
    stage.kill_daemon()?;
    stage.start_daemon()?;
    same(stage, &pools, &vms)?;
    agrees(stage)?;
    for (name, mut guest) in NAMES.into_iter().zip(guests) {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    Ok(())
}

/// Three guests that give memory back only through their balloons.
fn start(stage: &Stage, kinds: Guests) -> Result<Vec<Toucher>> {
    for (name, kernel) in NAMES.into_iter().zip([Version::V6_12, Version::V6_1, Version::V6_12]) {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.reports_free_pages = false;
        stage.run(&definition)?;
    }
    NAMES.iter().map(|name| stage.toucher(name)).collect()
}

fn shares(stage: &Stage, guests: &mut [Toucher], touched: Bytes) -> Result<()> {
    note("shares of one are raised");
    // Without a tax on idle memory, shares and bounds alone divide memory.
    for name in NAMES {
        set(stage, name, &["--tax", "0"])?;
    }
    let before = stage.vm("one")?;
    ensure!(
        explain(stage, "one")?.decision.is_some_and(|d| d.cause == Cause::Level),
        "all have the same shares"
    );
    let others = entitled(stage, &["two", "three"])?;
    let after = set(stage, "one", &["--shares", "20000"])?;
    ensure!(
        after.entitlement >= before.entitlement + FELT,
        "the entitlement went from {} to {} only",
        before.entitlement,
        after.entitlement
    );
    guests[0].ask(&format!("touch {} 2", touched.0), LIMIT)?;
    let one = stage.vm("one")?;
    ensure!(one.grant >= touched, "one was granted {} for the {touched} that it wrote", one.grant);
    let left = entitled(stage, &["two", "three"])?;
    ensure!(left + FELT <= others, "the others are entitled to {left}, and were to {others}");
    guests[0].verify_all(LIMIT)?;
    guests[0].ask("free 2", LIMIT)?;
    set(stage, "one", &["--shares", "normal"])?;
    agrees(stage)
}

/// What VMs are entitled to together.
fn entitled(stage: &Stage, names: &[&str]) -> Result<Bytes> {
    names.iter().map(|name| Ok(stage.vm(name)?.entitlement)).sum()
}

fn limit(stage: &Stage, guests: &mut [Toucher], touched: Bytes) -> Result<()> {
    note("one gets a limit, and loses it again");
    let most = Bytes::mib(128);
    set(stage, "one", &["--limit", &most.to_string()])?;
    stage.wait("one holds no more than its limit", LIMIT, |stage| {
        let one = stage.vm("one")?;
        Ok((one.held <= most && one.grant <= most + SLACK).then_some(()))
    })?;
    let explained = explain(stage, "one")?;
    let decision = explained.decision.context("one runs, and no memory is divided for it")?;
    ensure!(decision.cause == Cause::Limit && decision.ceiling == most, "{decision:?}");
    agrees(stage)?;
    set(stage, "one", &["--limit", "none"])?;
    guests[0].ask(&format!("touch {} 3", touched.0), LIMIT)?;
    // It could write that much within its limit, too: paged out, and slowly.
    stage.wait("one gets more than its limit was", LIMIT, |stage| {
        Ok((stage.vm("one")?.grant > most).then_some(()))
    })?;
    guests[0].verify_all(LIMIT)?;
    guests[0].ask("free 3", LIMIT).map(drop)
}

fn reservation(stage: &Stage, guests: &mut [Toucher], touched: Bytes) -> Result<()> {
    note("two gets a reservation");
    let reserved = Bytes::mib(224);
    // It is admitted as soon as that much is free for it.
    stage.wait("the reservation is admitted", LIMIT, |stage| {
        let output = stage.plimsoll(&["set", "two", "--reservation", &reserved.to_string()])?;
        if output.status.success() {
            return Ok(Some(()));
        }
        // Others have to give first; what they hold beyond their entitlements they give when
        // someone is short.
        set(stage, "two", &["--reservation", &stage.vm("two")?.grant.min(reserved).0.to_string()]).ok();
        for name in ["one", "three"] {
            set(stage, name, &["--limit", "160MiB"])?;
        }
        Ok(None)
    })?;
    for name in ["one", "three"] {
        set(stage, name, &["--limit", "none"])?;
    }
    let decision = explain(stage, "two")?.decision.context("two runs, and no memory is divided for it")?;
    ensure!(decision.guaranteed == reserved && decision.entitlement >= reserved, "{decision:?}");
    guests[1].ask(&format!("touch {} 4", touched.0), LIMIT)?;
    guests[1].verify_all(LIMIT)?;
    guests[1].ask("free 4", LIMIT)?;
    agrees(stage)?;
    set(stage, "two", &["--reservation", "0"]).map(drop)
}

fn pools(stage: &Stage) -> Result<()> {
    note("two guests move into a pool, which gets a limit");
    let most = Bytes::mib(256);
    // As many as a VM of this size has: both then have the same part of the pool that they are in.
    let shares = stage.vm("one")?.share_count.to_string();
    stage.facts::<PoolStatus>(&["pool", "create", "prod", "--shares", "low"])?;
    stage.facts::<PoolStatus>(&["pool", "create", "web", "--parent", "prod", "--shares", &shares])?;
    set(stage, "one", &["--pool", "prod"])?;
    set(stage, "three", &["--pool", "web"])?;
    stage.facts::<PoolStatus>(&["pool", "set", "prod", "--limit", &most.to_string()])?;
    let pool = stage.wait("the pool holds no more than its limit", LIMIT, |stage| {
        let pools: Vec<PoolStatus> = stage.facts(&["pool", "ls"])?;
        let prod = pools.into_iter().find(|pool| pool.name.as_str() == "prod").context("no pool prod")?;
        Ok((prod.granted <= most + SLACK).then_some(prod))
    })?;
    ensure!(pool.entitled <= most, "the pool is entitled to {}", pool.entitled);
    for name in ["prod", "web"] {
        let refused = stage.plimsoll(&["pool", "rm", name])?;
        ensure!(!refused.status.success(), "pool {name} was removed with a VM in it");
    }
    agrees(stage)
}

fn set(stage: &Stage, name: &str, change: &[&str]) -> Result<VmStatus> {
    stage.facts(&[&["set", name], change].concat())
}

fn explain(stage: &Stage, name: &str) -> Result<VmExplanation> {
    stage.facts(&["explain", name])
}

/// The pools and what was set are as they were.
fn same(stage: &Stage, pools: &[PoolStatus], vms: &[VmStatus]) -> Result<()> {
    let again: Vec<PoolStatus> = stage.facts(&["pool", "ls"])?;
    let defined = |p: &PoolStatus| (p.name.clone(), p.parent.clone(), p.share_count, p.limit, p.vms.clone());
    let (old, new): (Vec<_>, Vec<_>) =
        (pools.iter().map(defined).collect(), again.iter().map(defined).collect());
    ensure!(old == new, "pools were {old:?}, and are {new:?}");
    for vm in vms {
        let now = stage.vm(vm.name.as_str())?;
        ensure!(now.pool == vm.pool && now.tax == vm.tax && now.pid == vm.pid, "{vm:?} became {now:?}");
    }
    Ok(())
}

/// Waits for a moment at which nothing moves between one answer of the daemon and the next: then
/// they all agree.
fn agrees(stage: &Stage) -> Result<()> {
    stage.wait("the host stands still for a moment", MOMENT, |stage| {
        let before = (stage.host()?, stage.vms()?);
        let explained: HostExplanation = stage.facts(&["explain"])?;
        let after = (stage.host()?, stage.vms()?);
        // A daemon that has come back counts a VM in once its VMM has answered.
        if explained.vms.iter().any(|share| share.decision.is_none()) {
            return Ok(None);
        }
        // Whatever moves, each explanation is of one moment.
        whole(&explained)?;
        let stands = |vms: &[VmStatus]| {
            vms.iter().map(|vm| (vm.grant, vm.entitlement, vm.target, vm.ballooned)).collect::<Vec<_>>()
        };
        if stands(&before.1) != stands(&after.1) || before.0.free != after.0.free {
            return Ok(None);
        }
        let of = |e: &HostExplanation| e.vms.iter().map(|share| share.vm.clone()).collect::<Vec<_>>();
        ensure!(
            stands(&of(&explained)) == stands(&after.1) && explained.host.free == after.0.free,
            "explain and the ledger differ: {explained:?} {after:?}"
        );
        Ok(Some(()))
    })?;
    kernel(stage)
}

/// All numbers of one explanation fit each other, to the page.
fn whole(explained: &HostExplanation) -> Result<()> {
    let HostExplanation { host, decision, pools, vms, .. } = explained;
    ensure!(host.granted + host.overhead + host.frames + host.free == host.budget, "{host:?}");
    let granted: Bytes = vms.iter().map(|share| share.vm.grant).sum();
    ensure!(granted == host.granted, "the VMs were granted {granted}, the host granted {}", host.granted);
    let entitled: Bytes = vms.iter().map(|share| share.vm.entitlement).sum();
    ensure!(entitled <= decision.available, "{entitled} of {} were divided", decision.available);
    for share in vms {
        let vm = &share.vm;
        let decision = share.decision.as_ref().with_context(|| format!("{} takes no part", vm.name))?;
        ensure!(
            (decision.entitlement, decision.target, decision.active)
                == (vm.entitlement, vm.target, vm.active)
                && decision.above_target == vm.charge().saturating_sub(vm.target),
            "{vm:?} {decision:?}"
        );
    }
    for part in pools {
        let within = vms.iter().filter(|share| part.pool.vms.contains(&share.vm.name));
        let below = pools.iter().filter(|other| part.pool.pools.contains(&other.pool.name));
        let (mut granted, mut entitled) = (Bytes::ZERO, Bytes::ZERO);
        for (charge, entitlement) in within
            .map(|share| (share.vm.charge(), share.vm.entitlement))
            .chain(below.map(|other| (other.pool.granted, other.pool.entitled)))
        {
            (granted, entitled) = (granted + charge, entitled + entitlement);
        }
        ensure!((granted, entitled) == (part.pool.granted, part.pool.entitled), "{part:?}");
    }
    Ok(())
}

/// No process holds more than the ledger grants it, as the kernel sees it. Each stands still
/// meanwhile: pages that come and go while the kernel counts would be counted at two places.
fn kernel(stage: &Stage) -> Result<()> {
    for vm in stage.vms()? {
        let Some(pid) = vm.pid else { continue };
        let _still = Standstill::of(pid)?;
        let account = smaps::account(pid, vm.size)?.with_context(|| format!("process {pid} is gone"))?;
        let grant = stage.vm(vm.name.as_str())?.grant.max(vm.grant);
        ensure!(account.guest <= grant, "{}: the kernel sees {}, granted {grant}", vm.name, account.guest);
    }
    Ok(())
}
