//! What VMs used and had over time.

use jiff::Timestamp;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Percent, VmName};

/// First line of a history as comma-separated values.
pub const CSV_HEADER: &str = "seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes,shared_bytes,zero_bytes,saved_bytes,\
     compressed_bytes,swapped_bytes,swap_out_bytes_per_second,swap_in_bytes_per_second,stall_some_percent,stall_full_percent";

/// What is recorded of VMs, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// Second zero.
    pub since: Timestamp,
    /// Seconds between two records of a VM.
    pub period: u64,
    /// The records; at one time in the order of names.
    pub samples: Vec<Sample>,
    /// Where the next page begins: `after` of the next request. `None`: there is nothing later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}

/// One VM at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Read frames of its sharing domain.
    #[serde(default)]
    pub shared: Bytes,
    /// Held zeros, and cost nothing.
    #[serde(default)]
    pub zero: Bytes,
    /// What it would have held more if nothing had been shared.
    #[serde(default)]
    pub saved: Bytes,
    /// Content that was compressed.
    #[serde(default)]
    pub compressed: Bytes,
    /// Content that was in swap space only.
    #[serde(default)]
    pub swapped: Bytes,
    /// Written to swap space in a second.
    #[serde(default)]
    pub out_rate: Bytes,
    /// Read from there in a second.
    #[serde(default)]
    pub in_rate: Bytes,
    /// Part of the time since the sample before in which some of it was stalled for memory.
    #[serde(default)]
    pub stall_some: Percent,
    /// Part of that time in which all of it was.
    #[serde(default)]
    pub stall_full: Percent,
}

impl History {
    /// As comma-separated values, with [`CSV_HEADER`]; names hold nothing that would need quotes.
    pub fn csv(&self) -> String {
        let line = |s: &Sample| {
            let Sample { seconds, vm, active, held, entitlement, ballooned, shared, zero, saved, .. } = s;
            let Sample { compressed, swapped, out_rate, in_rate, .. } = s;
            let columns = [
                active,
                held,
                entitlement,
                ballooned,
                shared,
                zero,
                saved,
                compressed,
                swapped,
                out_rate,
                in_rate,
            ];
            let columns: String = columns.iter().map(|bytes| format!(",{}", bytes.0)).collect();
            format!("{seconds},{vm}{columns},{},{}\n", s.stall_some, s.stall_full)
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
            shared: Bytes(5),
            zero: Bytes(6),
            saved: Bytes(7),
            compressed: Bytes(8),
            swapped: Bytes(9),
            out_rate: Bytes(10),
            in_rate: Bytes(11),
            stall_some: Percent::of_fraction(0.5),
            stall_full: Percent::of_fraction(0.25),
        };
        let history = History { since: Timestamp::UNIX_EPOCH, period: 5, samples: vec![sample], next: None };
        let csv = history.csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert!(
            lines[0].starts_with("seconds,vm,active_bytes,held_bytes,entitlement_bytes,ballooned_bytes,"),
            "{csv}"
        );
        assert_eq!(lines[1..], ["5,web1,1,2,3,4,5,6,7,8,9,10,11,50.00,25.00"]);
        assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
    }
}
