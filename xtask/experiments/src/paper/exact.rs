//! What policy alone gives, for demand as it is and not as it is estimated.

use plimsoll_policy::{Client, Tax, entitlements};
use plimsoll_units::{Bytes, Pages};

/// What policy gives the two VMs of figure 7, an idle and a busy one of 256 MB with 360 MB for
/// both, that use `active`.
pub(super) fn fig7(tax: Tax, active: [Bytes; 2]) -> Vec<Pages> {
    let mib = |n| Pages::floor(Bytes::mib(n));
    let client = |active| Client {
        reservation: Pages::ZERO,
        limit: mib(256),
        shares: 1,
        active: Pages::floor(active),
    };
    entitlements(mib(360), tax, &active.map(client))
}
