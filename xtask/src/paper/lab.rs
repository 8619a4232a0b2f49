//! An experiment in the lab: boots it with what the guests need, runs the experiment's inner part and reads what it measured.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plimsoll_units::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lab::wire::{Kind, Request};
use crate::lab::{Config, Lab, show};
use crate::workspace::Programs;

/// What `xtask inside paper` with `arguments` measured in a lab with `memory` that has a copy of `share`. Its progress is
/// shown as it comes.
pub(super) fn measured<T: DeserializeOwned>(
    programs: &Programs,
    memory: Bytes,
    share: &Path,
    arguments: &[String],
    limit: Duration,
) -> Result<T> {
    let config = Config { memory, share: Some(share.to_owned()), ..Config::default() };
    let mut lab = Lab::boot(&config, programs)?;
    let argv =
        ["/bin/xtask", "inside", "paper"].map(str::to_owned).into_iter().chain(arguments.iter().cloned());
    let mut answer = Vec::new();
    let status =
        lab.run(&Request { argv: argv.collect(), env: Vec::new() }, limit, &mut |kind, bytes| match kind {
            Kind::Out => {
                answer.extend(bytes);
                Ok(())
            }
            _ => show(kind, bytes),
        })?;
    ensure!(status == 0, "the experiment in the lab failed: see its messages above");
    serde_json::from_slice(&answer).context("reading what was measured in the lab")
}

/// In the lab: passes on what was measured.
#[expect(clippy::print_stdout, reason = "the caller reads it there")]
pub(super) fn answer(measured: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(measured).context("writing what was measured")?);
    Ok(())
}
