//! What the simulator makes of a figure, beside the paper's numbers.

use anyhow::{Context, Result, anyhow};
use plimsoll_lab::workspace;
use plimsoll_sim::{Course, Scenario, simulate};
use serde::Serialize;

use super::super::table::{self, Row};

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    pub(super) figure: &'static str,
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let last = "OURS is what the simulator shows, EXACT what policy gives for the true demand; scenarios/README.md says more.";
        format!("{}\n{last}", table::text(self.figure, &self.rows))
    }
}

/// The shipped scenario `name` and its course.
pub(super) fn shipped(name: &str) -> Result<(Scenario, Course)> {
    let path = workspace::root().join("scenarios").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let none = |_: &str| Err("a shipped scenario names no files".to_owned());
    let scenario = Scenario::from_toml(&text, &none).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    let course = simulate(&scenario);
    Ok((scenario, course))
}
