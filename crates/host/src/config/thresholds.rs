use plimsoll_policy::Thresholds;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

/// Where the thresholds of the host's states come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThresholdKind {
    /// From minFree, as in ESXi.
    Sliding,
    /// From the budget: the paper's percentages.
    Fixed,
}

/// How the thresholds of the host's states follow from its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThresholdChoice {
    pub(super) kind: ThresholdKind,
    pub(super) min_free: Option<Bytes>,
}

impl ThresholdChoice {
    /// The thresholds for `budget`.
    pub(crate) fn of(self, budget: Bytes) -> Thresholds {
        match (self.kind, self.min_free) {
            (ThresholdKind::Fixed, _) => Thresholds::fixed(budget),
            (ThresholdKind::Sliding, Some(min_free)) => Thresholds::of_min_free(min_free),
            (ThresholdKind::Sliding, None) => Thresholds::sliding(budget),
        }
    }
}
