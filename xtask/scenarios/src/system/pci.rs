//! Both kernels boot on PCI, each device with interrupts by messages: one with as many disks and
//! interfaces as there may be, the other again after a reboot in place.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::{note, step};
use plimsoll_operate::definition::{Definition, Runs};
use plimsoll_operate::toucher::Toucher;
use plimsoll_operate::{Stage, in_lab};
use plimsoll_protocol::control::ExitReason;
use plimsoll_protocol::definition::Bus;
use plimsoll_protocol::status::Exit;
use plimsoll_units::Bytes;

use super::boot::{devices, overhead};
use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(120);
const DISK: Bytes = Bytes::mib(16);
/// Below what the guest has, so that its balloon has to grow.
const LESS: &str = "160MiB";
const FELT: Bytes = Bytes::mib(16);
/// Counts the lines of virtio's interrupts by messages, and those that have come.
const INTERRUPTS: &str =
    "awk '/MSI.*virtio/ { n++; if ($2 + $3 > 0) m++ } END { print n, m }' /proc/interrupts";

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = reboots(&stage).and_then(|()| has_all(&stage));
    stage.explained(result)
}

/// A guest with a disk and an interface has a balloon that follows, and reboots in place.
fn reboots(stage: &Stage) -> Result<()> {
    let name = "pci";
    let mut guest = Guest::start(stage, name, Version::V6_12, 1, 1)?;
    guest.all_work()?;

    step("the balloon grows: its configuration has changed");
    stage.succeed(&["set", name, "--limit", LESS])?;
    stage.wait(
        "the balloon follows",
        LIMIT,
        |stage| Ok((stage.vm(name)?.ballooned >= FELT).then_some(())),
    )?;

    step("reboot");
    guest.toucher.send("reboot")?;
    stage.wait("the reboot is counted", LIMIT, |stage| Ok((stage.vm(name)?.reboots == 1).then_some(())))?;
    guest.toucher.greet(LIMIT).context("after the reboot")?;
    guest.all_work()?;
    guest.stop(stage)
}

/// A guest has all disks and interfaces that there may be, and costs no more than what the ledger
/// charges for them.
fn has_all(stage: &Stage) -> Result<()> {
    let mut guest =
        Guest::start(stage, "pci-all", Version::V6_1, Bus::Pci.max_disks(false), Bus::Pci.max_nets())?;
    guest.all_work()?;
    overhead(&stage.vm(guest.name)?)?;
    guest.stop(stage)
}

/// A guest on PCI.
struct Guest {
    name: &'static str,
    disks: usize,
    /// Its devices in all.
    devices: usize,
    toucher: Toucher,
}

impl Guest {
    fn start(stage: &Stage, name: &'static str, version: Version, disks: usize, nets: usize) -> Result<Self> {
        step(&format!("a guest with kernel {version}, {disks} disks and {nets} interfaces on PCI"));
        let mut definition = Definition::new(name, Bytes::mib(256), Runs::Toucher(version));
        (definition.vcpus, definition.bus) = (2, Bus::Pci);
        for index in 0..disks {
            let disk = stage.path().join(format!("{name}-{index}.raw"));
            fs::File::create(&disk)?.set_len(DISK.0)?;
            definition.disks.push(disk);
        }
        // Elsewhere there may be no right to make a tap device.
        for index in 0..if in_lab() { nets } else { 0 } {
            definition.taps.push(crate::tap::make(&format!("tap-pci{index}"))?);
        }
        let devices = disks + definition.taps.len() + 2;
        stage.run(&definition)?;
        Ok(Self { name, disks, devices, toucher: stage.toucher(name)? })
    }

    /// All devices have their drivers and interrupt by messages, and the first and the last disk
    /// keep what is written to them.
    fn all_work(&mut self) -> Result<()> {
        devices(&mut self.toucher)?;
        let found = self.toucher.ask("devices", LIMIT)?.number("count")?;
        ensure!(found == self.devices as u64, "the guest has found {found} of {} devices", self.devices);
        let bytes = Bytes::mib(4).0;
        for index in [0, self.disks - 1] {
            let path = disk_name(index);
            let answer = self.toucher.ask(&format!("disk {path} {bytes} 3"), LIMIT)?;
            let whole = answer.number("bytes")? == bytes && answer.number("mismatched")? == 0;
            ensure!(whole, "{path}: {}", answer.text());
        }
        let answer = self.toucher.ask(&format!("run {INTERRUPTS}"), LIMIT)?;
        let mut numbers = answer.text().split_whitespace().filter_map(|word| word.parse::<usize>().ok());
        let (lines, came) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        note(&format!("{lines} interrupts by messages, of which {came} have come"));
        // One for each device's configuration and one for each disk's queue at least.
        let enough = lines >= self.devices + self.disks && came > self.disks;
        ensure!(enough, "interrupts of virtio: {}", answer.text());
        Ok(())
    }

    fn stop(&self, stage: &Stage) -> Result<()> {
        stage.succeed(&["stop", self.name])?;
        let exit = stage.wait_off(self.name, LIMIT)?.exit;
        ensure!(exit == Some(Exit::Told(ExitReason::Shutdown)), "the shutdown was reported as {exit:?}");
        Ok(())
    }
}

/// What Linux calls disk `index`, below 52: vda to vdz, vdaa to vdaz.
fn disk_name(index: usize) -> String {
    let letters: Vec<char> = ('a'..='z').collect();
    let first = if index < letters.len() { String::new() } else { "a".to_owned() };
    format!("/dev/vd{first}{}", letters[index % letters.len()])
}
