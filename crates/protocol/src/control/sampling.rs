use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::REPORT_PERIOD;

/// How a VM's memory is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingConfig {
    /// Samples a period: 1 to [`MAX_SAMPLES`].
    pub samples: u32,
    /// How long the VM runs in a period: [`SHORTEST_SAMPLE_PERIOD`] to [`LONGEST_SAMPLE_PERIOD`].
    pub period: Duration,
}

/// Most samples a period.
pub const MAX_SAMPLES: u32 = 1000;
/// Shortest period of sampling. Shorter, and reports would miss periods.
pub const SHORTEST_SAMPLE_PERIOD: Duration = REPORT_PERIOD;
/// Longest period of sampling. Longer, and an idle VM would seem busy for half a day.
pub const LONGEST_SAMPLE_PERIOD: Duration = Duration::from_secs(3600);
