//! What VMs used and had over time.

use jiff::Timestamp;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::VmName;

/// First line of a history as comma-separated values.
pub const CSV_HEADER: &str = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes";

/// What is recorded of VMs, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Second zero.
    pub since: Timestamp,
    /// Seconds between two records of a VM.
    pub period: u64,
    /// The records; at one time in the order of names.
    pub samples: Vec<Sample>,
}

/// One VM at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since [`History::since`].
    pub seconds: u64,
    /// The VM.
    pub vm: VmName,
    /// Estimate of what it actively used.
    pub active: Bytes,
    /// Held by its guest.
    pub held: Bytes,
    /// What policy gave it.
    pub entitlement: Bytes,
    /// In its balloon.
    pub ballooned: Bytes,
}

impl History {
    /// As comma-separated values, with [`CSV_HEADER`]; names hold nothing that would need quotes.
    pub fn csv(&self) -> String {
        let line = |s: &Sample| {
            let Sample { seconds, vm, active, held, entitlement, ballooned } = s;
            format!("{seconds},{vm},{},{},{},{}\n", active.0, held.0, entitlement.0, ballooned.0)
        };
        std::iter::once(format!("{CSV_HEADER}\n")).chain(self.samples.iter().map(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_a_line_a_sample() {
        let sample = Sample {
            seconds: 5,
            vm: "web1".parse().unwrap(),
            active: Bytes(1),
            held: Bytes(2),
            entitlement: Bytes(3),
            ballooned: Bytes(4),
        };
        let history = History { since: Timestamp::UNIX_EPOCH, period: 5, samples: vec![sample] };
        let columns = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes";
        assert_eq!(history.csv(), format!("{columns}\n5,web1,1,2,3,4\n"));
    }
}
