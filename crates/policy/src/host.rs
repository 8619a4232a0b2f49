use std::time::Duration;

use plimsoll_units::Pages;

use crate::state::{State, Thresholds};

/// The facts of the host that targets depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Machine memory for guests: the budget less all overheads.
    pub for_guests: Pages,
    /// Machine memory that is neither granted nor charged.
    pub free: Pages,
    /// Reservations of VMs and pools that are not granted yet, less loans to VMs that give them
    /// back at once: see [`Grants::withheld`](crate::Grants::withheld).
    pub withheld: Pages,
    /// Its thresholds of free memory.
    pub thresholds: Thresholds,
    /// Its state.
    pub state: State,
    /// Balloons alone have not sufficed for too long: see
    /// [`States::is_strained`](crate::States::is_strained).
    pub strained: bool,
    /// The time since the last decision: it bounds the growth of balloons.
    pub elapsed: Duration,
}

impl Host {
    /// The memory for guests less minFree. It is divided into entitlements unless reservations
    /// exceed it.
    pub fn available(&self) -> Pages {
        self.for_guests.saturating_sub(self.thresholds.clear)
    }
}
