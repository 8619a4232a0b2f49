//! What the rest of the VMM sees of a guest, whatever it is.

use std::os::fd::OwnedFd;

use plimsoll_protocol::control::GuestFacts;
use plimsoll_units::Pages;

/// What runs in a VM, as the control thread sees it. Nothing here waits for guest memory.
pub(crate) trait Guest: Send {
    /// Presses its power button.
    fn press_power_button(&self);
    /// Presses its reset button.
    fn press_reset_button(&self);
    /// Sets the target size of its balloon.
    fn set_balloon_target(&self, pages: Pages);
    /// The state of its balloon.
    fn balloon(&self) -> BalloonFacts;
    /// The host's answer to its question `id` for a connection: a connected socket, or none.
    fn dialed(&self, _id: u64, _socket: Option<OwnedFd>) {}
}

/// What is known of a guest's balloon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BalloonFacts {
    /// Its size, as its driver reports it.
    pub(crate) actual: Pages,
    /// Its target size.
    pub(crate) target: Pages,
    /// Whether a driver has been seen.
    pub(crate) driver: bool,
    /// What the driver reports of the guest.
    pub(crate) guest: Option<GuestFacts>,
}

impl BalloonFacts {
    /// Whether it has yet to grow to its target.
    pub(crate) fn inflates(&self) -> bool {
        self.driver && self.actual < self.target
    }
}
