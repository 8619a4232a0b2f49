//! A guest that allocates without end: it waits, or its own kernel kills its process. The budget
//! and the others hold.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plimsoll_lab::kernel::Version;
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_operate::definition::Definition;
use plimsoll_operate::watch;
use plimsoll_protocol::status::Power;
use plimsoll_units::Bytes;

use crate::guests::Guests;

const SIZE: Bytes = Bytes::mib(256);
const KEPT: Bytes = Bytes::mib(48);
/// Enough for a guest's kernel, what it keeps and a little more.
const RESERVED: Bytes = Bytes::mib(128);
/// Too little for the greedy guest's whole size beside the two others.
const BUDGET: Bytes = Bytes::mib(448);
/// Long enough for a guest in emulation to touch all that it sees.
const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(240);

pub(super) fn run(kinds: Guests) -> Result<()> {
    let stage = Stage::open(BUDGET)?;
    let result = scenario(&stage, kinds);
    stage.explained(result)
}

fn scenario(stage: &Stage, kinds: Guests) -> Result<()> {
    for (name, kernel, reservation) in [
        ("good1", Version::V6_1, RESERVED),
        ("good2", Version::V6_12, RESERVED),
        ("greedy", Version::V6_12, Bytes::ZERO),
    ] {
        let mut definition = Definition::new(name, SIZE, kinds.run(kernel));
        definition.reservation = reservation;
        stage.run(&definition)?;
    }
    let mut good = [stage.toucher("good1")?, stage.toucher("good2")?];
    let mut greedy = stage.toucher("greedy")?;
    let ((), peaks) = watch::while_watching(stage, || {
        for guest in &mut good {
            guest.ask(&format!("touch {} 1", KEPT.0), LIMIT)?;
        }
        greedy.send("alloc-forever")?;
        match greedy.answer("alloc-forever", Instant::now() + TIMEOUT)? {
            Some(answer) => note(&format!("the greedy guest's own kernel ended it: {}", answer.text())),
            None => note(&format!("the greedy guest waits: {} wanted", stage.vm("greedy")?.wanted)),
        }
        for guest in &mut good {
            ensure!(guest.verify_all(LIMIT)? == KEPT.0, "a good guest did not verify all that it wrote");
            // What is reserved for them they still get, though the greedy guest would have taken
            // it.
            guest.ask(&format!("touch {} 2", Bytes::mib(8).0), LIMIT)?;
            guest.verify_all(LIMIT)?;
        }
        Ok(())
    })?;
    ensure!(peaks.errors.is_empty(), "{}", peaks.errors.join("\n"));
    ensure!(peaks.ledger <= BUDGET, "the ledger went up to {}", peaks.ledger);
    ensure!(peaks.kernel <= BUDGET, "the kernel accounted {}", peaks.kernel);
    for name in ["good1", "good2", "greedy"] {
        ensure!(stage.vm(name)?.power == Power::On, "{name} did not survive");
    }
    Ok(())
}
