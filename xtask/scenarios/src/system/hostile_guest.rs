//! A guest that drives its devices against all their rules: it costs its own VM at most. Its VMM
//! does not crash, an honest guest beside it loses nothing, and the accounts add up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::{Stage, in_lab, watch};
use plimsoll_protocol::api::Event;
use plimsoll_protocol::status::Power;
use plimsoll_units::Bytes;

use crate::guests::Guests;

const BUDGET: Bytes = Bytes::mib(448);
const SIZE: Bytes = Bytes::mib(192);
/// What the hostile guest's kernel has of that. The rest is what it attacks with.
const KERNEL: Bytes = Bytes::mib(112);
const KEPT: Bytes = Bytes::mib(64);
const DISK: Bytes = Bytes::mib(32);
/// How long one attack lasts, and the numbers that they are made of.
const ATTACK: u64 = 15;
const SEEDS: [u64; 2] = [1, 2];
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(_: Guests) -> Result<()> {
    let stage = Stage::open(BUDGET)?;
    let result = watch::while_watching(&stage, || scenario(&stage));
    let ((), peaks) = stage.explained(result)?;
    ensure!(peaks.errors.is_empty(), "{}", peaks.errors.join("\n"));
    ensure!(peaks.ledger <= BUDGET, "the ledger went up to {}", peaks.ledger);
    ensure!(peaks.kernel <= BUDGET, "the kernel accounted {}", peaks.kernel);
    Ok(())
}

fn scenario(stage: &Stage) -> Result<()> {
    stage.run(&Definition::new("honest", SIZE, Guests::Kernels.run(Version::V6_12)))?;
    let mut honest = stage.toucher("honest")?;
    honest.ask(&format!("touch {} 1", KEPT.0), LIMIT)?;
    stage.run(&hostile(stage)?)?;
    let mut guest = stage.toucher("hostile")?;
    let pid = stage.vm("hostile")?.pid.context("it has no process")?;
    for seed in SEEDS {
        let (at, len) = (KERNEL.0, SIZE.0 - KERNEL.0);
        let answer = guest.ask(&format!("attack {seed} {ATTACK} {at} {len}"), LIMIT)?;
        note(answer.text());
        ensure!(answer.number("started")? > 20, "that is no attack: {}", answer.text());
        ensure!(answer.number("refused")? > 0, "no device has refused anything: {}", answer.text());
        let vm = stage.vm("hostile")?;
        ensure!(vm.power == Power::On && vm.pid == Some(pid), "its VMM has ended: {:?}", vm.exit);
        ensure!(honest.verify_all(LIMIT)? == KEPT.0, "the honest guest has lost pages");
        honest.ask("touch 8388608 2", LIMIT)?;
        honest.ask("free 2", LIMIT)?;
    }
    let log = String::from_utf8_lossy(&stage.succeed(&["logs", "hostile"])?.stdout).into_owned();
    ensure!(!log.contains("panicked"), "its VMM has panicked:\n{log}");
    let events: Vec<Event> = stage.facts(&["events"])?;
    let refused = events.iter().filter(|event| event.text.contains("the guest broke a queue")).count();
    ensure!(refused > 0, "no event says what its VMM refused");
    for (name, guest) in [("hostile", &mut guest), ("honest", &mut honest)] {
        guest.send("poweroff")?;
        stage.wait_off(name, LIMIT)?;
    }
    stage.wait_free().map(drop)
}

/// A guest whose kernel leaves devices and a part of its memory alone.
fn hostile(stage: &Stage) -> Result<Definition> {
    let mut definition = Definition::new("hostile", SIZE, Guests::Kernels.run(Version::V6_12));
    let disk = stage.path().join("hostile.raw");
    std::fs::File::create(&disk)?.set_len(DISK.0)?;
    definition.disks.push(disk);
    if in_lab() {
        definition.taps.push(crate::tap::make("tap-hostile")?);
    }
    let memory = format!("mem={}M iomem=relaxed modprobe.blacklist=virtio_mmio", KERNEL.0 >> 20);
    definition.kernel_words = Some(memory);
    Ok(definition)
}
