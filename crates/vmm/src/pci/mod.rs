//! PCI as guests see it: one bus behind a host bridge, with memory-mapped configuration (ECAM) and
//! the two ports that came before it.
//!
//! [`Root`] finds the function that an access is for. A [`Function`] has 256 bytes of configuration
//! space ([`ConfigSpace`]), one 64-bit memory BAR, and interrupts by messages ([`Msix`]). There are
//! no interrupt pins, no ports of functions, no bridges, and no bus beside bus 0.
//!
//! A guest may move BARs. A BAR is mapped while its function decodes memory and as long as it lies
//! within the window of [`Root`] and on no other BAR, so it never covers guest memory or another
//! device.
//!
//! What can be done without leaving the guest is done by KVM, through [`Wiring`].

mod config_space;
mod msix;
mod root;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "tests use more of it"))]
pub(crate) mod testing;

#[cfg(test)]
pub(crate) use config_space::offset;
pub(crate) use config_space::{ConfigSpace, Identity};
pub(crate) use msix::{Message, Msix};
pub(crate) use root::{Ecam, Function, MemoryWindow, Ports, Root};
use vmm_sys_util::eventfd::EventFd;

/// What KVM does for functions without leaving the guest or the device's thread. It may be without
/// a VM: then nothing is done.
pub(crate) trait Wiring: Send + Sync {
    /// From now on the eventfd of interrupt line `line` sends `message`; with `None`, nothing.
    fn route(&self, line: u32, message: Option<Message>);
    /// From now on a write to `address`, of any width, signals `kick`.
    fn watch(&self, address: u64, kick: &EventFd);
    /// Ends what [`watch`](Self::watch) began.
    fn unwatch(&self, address: u64, kick: &EventFd);
}
