//! `kill -9` of one VMM: the others do not notice, and its memory is back in the ledger within a
//! second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::smaps;
use plimsoll_protocol::status::{Exit, Power};
use plimsoll_units::Bytes;
use rustix::process::Signal;

use crate::guests::Guests;

const LIMIT: Duration = Duration::from_secs(240);
/// What the ledger promises its users.
const BACK_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let stage = Stage::open(Bytes::mib(640))?;
    let result = scenario(&stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &Stage, kinds: Guests) -> Result<()> {
    let names = ["one", "two", "three"];
    for name in names {
        stage.run(&Definition::new(name, Bytes::mib(256), kinds.run(Version::V6_12)))?;
    }
    let mut guests = names.iter().map(|name| stage.toucher(name)).collect::<Result<Vec<_>>>()?;
    for guest in &mut guests {
        guest.ask(&format!("touch {} 7", Bytes::mib(64).0), LIMIT)?;
    }
    let victim = stage.vm("two")?;
    let before = stage.host()?;
    let pid = stage.signal("two", Signal::KILL)?;
    let begin = Instant::now();
    let vm = stage.wait("the VM is off and its grant is back", BACK_WITHIN, |stage| {
        let (vm, host) = (stage.vm("two")?, stage.host()?);
        let back = vm.power == Power::Off && vm.grant == Bytes::ZERO && vm.overhead == Bytes::ZERO;
        let less = before.granted.saturating_sub(host.granted) >= Bytes(victim.grant.0 / 2);
        Ok((back && less).then_some(vm))
    })?;
    note(&format!("{} were back after {} ms", victim.grant, begin.elapsed().as_millis()));
    ensure!(matches!(vm.exit, Some(Exit::Vanished(_))), "its end was reported as {:?}", vm.exit);
    ensure!(smaps::account(pid, victim.size)?.is_none(), "process {pid} is still there");
    for index in [0, 2] {
        guests[index].verify_all(LIMIT)?;
        ensure!(stage.vm(names[index])?.power == Power::On, "{} did not survive", names[index]);
    }
    // The VM can run again.
    stage.facts::<serde_json::Value>(&["start", "two"])?;
    stage.toucher("two")?;
    guests[0].verify_all(LIMIT).map(drop)
}
