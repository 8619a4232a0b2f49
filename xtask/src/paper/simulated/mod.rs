//! The paper's experiments as the simulator of `plimsoll plan` sees them: the scenarios are those that `plimsoll plan` ships.

mod fig7;
mod fig8;

use anyhow::{Context, Result, anyhow};
use plimsoll_sim::{Course, Scenario, simulate};
use serde::Serialize;

use super::table::{self, Row};
use crate::workspace;

/// A figure that can be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// The tax on idle memory.
    Fig7,
    /// Five VMs on a host of 1 GB.
    Fig8,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    figure: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// Runs a figure's scenario.
    pub(super) fn of(figure: Figure) -> Result<Self> {
        match figure {
            Figure::Fig7 => fig7::report(),
            Figure::Fig8 => fig8::report(),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let last = "OURS is what the simulator shows, EXACT what policy gives for the true demand; scenarios/README.md says more.";
        format!("{}\n{last}", table::text(self.figure, &self.rows))
    }
}

/// The shipped scenario `name` and its course.
fn shipped(name: &str) -> Result<(Scenario, Course)> {
    let path = workspace::root().join("scenarios").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let none = |_: &str| Err("a shipped scenario names no files".to_owned());
    let scenario = Scenario::from_toml(&text, &none).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    let course = simulate(&scenario);
    Ok((scenario, course))
}
