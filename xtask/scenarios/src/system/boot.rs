//! Both kernels boot with every virtio device bound; shutdown, reboot and crash are told apart.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_operate::{Stage, in_lab, smaps};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::status::{Exit, Power, VmStatus};
use plimsoll_units::Bytes;

use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(120);
const DISK: Bytes = Bytes::mib(32);
/// The virtio device types that every guest here has: net, block, entropy, balloon.
const TYPES: [(u32, &str); 4] =
    [(1, "virtio_net"), (2, "virtio_blk"), (4, "virtio_rng"), (5, "virtio_balloon")];

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(512))?;
    for version in Version::ALL {
        step(&format!("a guest with kernel {version}"));
        let result = one_guest(&stage, version).with_context(|| format!("guest kernel {version}"));
        stage.explained(result)?;
    }
    Ok(())
}

fn one_guest(stage: &Stage, version: Version) -> Result<()> {
    let name = format!("guest-{}", version.to_string().replace('.', "-"));
    let disk = stage.path().join(format!("{name}.raw"));
    fs::File::create(&disk)?.set_len(DISK.0)?;
    let mut definition = Definition::new(&name, Bytes::mib(256), Runs::Toucher(version));
    definition.vcpus = 2;
    definition.disks.push(disk);
    if in_lab() {
        definition.taps.push(crate::tap::make("tap-boot")?);
    }
    stage.run(&definition)?;
    let mut guest = stage.toucher(&name)?;
    devices(&mut guest)?;
    let bytes = Bytes::mib(8).0;
    let answer = guest.ask(&format!("disk /dev/vda {bytes} 3"), LIMIT)?;
    ensure!(answer.number("bytes")? == bytes && answer.number("mismatched")? == 0, "disk: {}", answer.text());

    overhead(&stage.vm(&name)?)?;

    step("reboot");
    guest.ask(&format!("touch {} 1", Bytes::mib(64).0), LIMIT)?;
    guest.send("reboot")?;
    let vm = stage.wait("the reboot is counted", LIMIT, |stage| {
        let vm = stage.vm(&name)?;
        ensure!(vm.power != Power::Off, "a reboot ended the VM: {:?}", vm.exit);
        Ok((vm.reboots == 1).then_some(vm))
    })?;
    guest.greet(LIMIT).context("after the reboot")?;
    ensure!(stage.vm(&name)?.pid == vm.pid, "the reboot changed the process");
    devices(&mut guest)?;

    step("shutdown by the power button");
    stage.succeed(&["stop", &name])?;
    let exit = stage.wait_off(&name, LIMIT)?.exit;
    ensure!(exit == Some(Exit::Told(ExitReason::Shutdown)), "the shutdown was reported as {exit:?}");

    step("crash");
    stage.succeed(&["start", &name])?;
    let mut guest = stage.toucher(&name)?;
    guest.send("crash")?;
    let exit = stage.wait_off(&name, LIMIT)?.exit;
    ensure!(matches!(exit, Some(Exit::Told(ExitReason::Crashed(_)))), "the crash was reported as {exit:?}");
    Ok(())
}

/// What the VM costs beside its guest's memory is no more than what the ledger charges for it: its
/// process, and the page tables of process and guest. No other VM runs.
pub(super) fn overhead(vm: &VmStatus) -> Result<()> {
    let pid = vm.pid.context("the VM is off")?;
    let account = smaps::account(pid, vm.size)?.with_context(|| format!("process {pid} is gone"))?;
    let tables =
        size_in(&format!("/proc/{pid}/status"), "VmPTE:")? + size_in("/proc/meminfo", "SecPageTables:")?;
    let measured = account.rest + tables;
    note(&format!("costs {measured} beside guest memory, is charged {}", vm.overhead));
    ensure!(measured <= vm.overhead, "{measured} beside guest memory, charged with {}", vm.overhead);
    Ok(())
}

/// The size after `key` in a file of the kernel's.
fn size_in(path: &str, key: &str) -> Result<Bytes> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(smaps::kib).with_context(|| format!("{path} has no {key}"))
}

/// Every device that was asked for is there and has its driver.
pub(super) fn devices(guest: &mut Toucher) -> Result<()> {
    let answer = guest.ask("devices", LIMIT)?;
    for (kind, driver) in TYPES {
        if kind == 1 && !in_lab() {
            continue; // Elsewhere there may be no right to make a tap device.
        }
        let wanted = format!(":{kind}={driver}");
        ensure!(
            answer.text().contains(&wanted),
            "no device with its driver ends in {wanted}: {}",
            answer.text()
        );
    }
    ensure!(!answer.text().contains("=none"), "a device has no driver: {}", answer.text());
    Ok(())
}
