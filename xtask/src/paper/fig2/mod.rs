//! Figure 2: dbench with 40 clients in a VM that is configured with a size, and in one of 256 MB that is ballooned down to it.

mod inside;

use std::time::Duration;

use anyhow::Result;
use plimsoll_units::Bytes;
use serde::Serialize;

use super::{PaperArgs, lab};
use crate::guest;
use crate::kernel::Version;
use crate::workspace;

use inside::Sample;
pub(crate) use inside::{Plan, measure};

/// The sizes that are measured in both ways, in MB.
const SIZES: [u64; 4] = [128, 160, 192, 224];
/// The size from which is ballooned.
const FULL: u64 = 256;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    samples: Vec<Sample>,
}

impl Report {
    pub(super) fn text(&self) -> String {
        String::new()
    }
}

pub(super) fn run(arguments: &PaperArgs) -> Result<Report> {
    let programs = workspace::build()?;
    let share = guest::dbench::build(Version::V6_12, &programs, 5)?;
    let env = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let argv = [
        "fig2",
        "--rounds",
        &arguments.rounds.to_string(),
        "--clients",
        &env("CLIENTS", "40"),
        "--seconds",
        &env("SECONDS_", "20"),
    ]
    .map(str::to_owned);
    let samples = lab::measured(&programs, Bytes::mib(5 << 10), &share, &argv, Duration::from_secs(3600))?;
    Ok(Report { samples })
}
