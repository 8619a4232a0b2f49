//! The VM's grant, what it holds, and the faults that wait for more.
//!
//! [`Account`] is arithmetic. [`Ledger`] is the account behind its lock, with the
//! [`GrantSource`] that is reported what is wanted.

mod balance;
#[cfg(test)]
mod defects;
mod grant;
mod ledger;
mod pin_budget;
mod stall;
mod tally;
mod waiting;

#[cfg(not(test))]
pub(crate) use balance::Account;
pub use balance::{SharingTraffic, Traffic};
#[cfg(test)]
pub(crate) use defects::Account;
pub use grant::GrantSource;
pub(crate) use ledger::{AccountGuard, Ledger};
pub(crate) use pin_budget::{PinBudget, PinPermit};
pub use stall::Stalled;
pub(crate) use tally::{Kind, Tally};
pub(crate) use waiting::Need;
