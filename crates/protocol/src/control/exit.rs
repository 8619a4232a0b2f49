use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a VMM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// The guest switched itself off.
    Shutdown,
    /// The guest crashed (it reported a panic, or triple-faulted).
    Crashed(String),
    /// The VMM could not go on: what failed, in one line.
    Failed(String),
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the guest shut down"),
            Self::Crashed(how) => write!(f, "the guest crashed: {how}"),
            Self::Failed(what) => write!(f, "the VMM failed: {what}"),
        }
    }
}
