//! What was done how often.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts by what is counted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// One more of `what`.
    pub(super) fn count(&mut self, what: impl Into<String>) {
        self.add(what, 1);
    }

    /// That many more of `what`.
    pub(super) fn add(&mut self, what: impl Into<String>, more: u64) {
        *self.0.entry(what.into()).or_default() += more;
    }

    /// All counts, a line each.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, count)| format!("{count:>6}  {what}"))
    }
}
