use std::path::PathBuf;

use plimsoll_policy::State;
use plimsoll_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::stall::StallStatus;

/// The host's account of its memory. At every moment `budget = granted + overhead + frames + free`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostStatus {
    /// Machine memory that Plimsoll may use.
    pub budget: Bytes,
    /// The part of the configured budget that other programs of the host have taken: not in
    /// `budget`, unless VMs still have it. Zero where the budget is automatic: it follows what the
    /// machine has.
    #[serde(default)]
    pub taken: Bytes,
    /// Promised to guests.
    pub granted: Bytes,
    /// Charged for the VMMs' own memory.
    pub overhead: Bytes,
    /// Frames that pages of VMs share.
    #[serde(default)]
    pub frames: Bytes,
    /// Guest memory that reads them.
    #[serde(default)]
    pub shared: Bytes,
    /// Guest memory that was found to hold zeros, and costs nothing.
    #[serde(default)]
    pub zero: Bytes,
    /// Not promised to any VM.
    pub free: Bytes,
    /// Reserved by VMs that run, with their overhead, and by pools.
    pub reserved: Bytes,
    /// VMs that start get swap space.
    #[serde(default)]
    pub swapping: bool,
    /// Why they get none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_swap: Option<String>,
    /// Swap space that admission counts on; `None`: it does not look at swap space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Bytes>,
    /// Swap space that all VMs that run have reserved: size less reservation.
    #[serde(default)]
    pub swap_reserved: Bytes,
    /// Content of guests that is in swap space only.
    #[serde(default)]
    pub swapped: Bytes,
    /// Content of guests that is compressed.
    #[serde(default)]
    pub compressed: Bytes,
    /// Machine memory that compressed content takes: part of what is held.
    #[serde(default)]
    pub store: Bytes,
    /// VMs whose processors stand still until they hold less.
    #[serde(default)]
    pub blocked: u64,
    /// Held by guests, as their VMMs say.
    pub held: Bytes,
    /// In balloons.
    pub ballooned: Bytes,
    /// Resident guest memory, as the kernel accounts it.
    pub kernel: Bytes,
    /// Highest `granted + overhead + frames` since the daemon started.
    pub peak_ledger: Bytes,
    /// Highest `kernel` that was seen since the daemon started.
    pub peak_kernel: Bytes,
    /// How short of free memory the host is.
    pub state: State,
    /// Below this much free memory the host is no longer in state high.
    pub high_threshold: Bytes,
    /// Time that VMs were stalled for memory.
    #[serde(default)]
    pub stall: StallStatus,
    /// VMs that stand still for want of memory.
    #[serde(default)]
    pub stalled: u64,
    /// VMs that run.
    pub running: u64,
    /// How long the daemon takes for what comes in; `None` in its first seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<TurnStatus>,
    /// Directory that base images lie in or below; `None`: the daemon does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_directory: Option<PathBuf>,
    /// Directory of the disks that are made for VMs of an image; `None`: the daemon does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_directory: Option<PathBuf>,
    /// The daemon's version.
    pub version: String,
}

/// The turns of the daemon's loop in the last whole 10 s. In each it takes what has come in from
/// VMMs and users, and decides: VMMs and users wait for the turn under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TurnStatus {
    /// How many there were.
    pub count: u64,
    /// Microseconds that half of them took at most.
    pub median_us: u64,
    /// Microseconds that 99 of 100 took at most.
    pub p99_us: u64,
    /// Microseconds of the longest.
    pub longest_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_as_the_word_that_is_displayed() {
        let states = [State::High, State::Clear, State::Soft, State::Hard, State::Low];
        let words = ["high", "clear", "soft", "hard", "low"];
        for (state, word) in states.into_iter().zip(words) {
            assert_eq!(serde_json::to_value(state).unwrap(), word);
            assert_eq!(serde_json::from_value::<State>(word.into()).unwrap(), state);
            assert_eq!(format!("{state:>6}"), format!("{word:>6}"));
        }
    }
}
