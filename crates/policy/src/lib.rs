//! The division of a host's memory among its VMs.
//!
//! Pure arithmetic after Waldspurger 2002, sections 5 and 6, and ESXi's public documentation. Facts
//! are arguments and decisions are values: this crate does no I/O, makes no system call, reads no
//! clock and starts no thread. All state belongs to its caller ([`Estimator`], [`Need`], [`Spare`],
//! [`Inflation`], [`States`], [`Gain`], [`Stalls`]).
//!
//! Start with [`divide`], which divides memory among VMs in a tree of resource pools. [`decide`]
//! turns that division into targets for each VM's balloon and every other mechanism. [`Grants`]
//! computes the memory that a waiting VM may have at once, [`remedies`] the changes that would give
//! a VM more. [`Reservations`] decides whether a VM may power on and a reservation may grow.
//! [`fn@charge`] computes the memory that a VM holds, [`fn@scan`] its scanning for pages that can
//! be shared.
//!
//! # Example
//!
//! An idle and a busy VM of 256 pages and equal shares share a machine of 360 pages. Without a tax
//! on idle memory each has half of the machine. With the tax of 75 % an idle page costs as much as
//! four active ones, so most memory goes to the VM that uses it (Waldspurger 2002, section 5.3).
//!
//! ```
//! use plimsoll_policy::{Client, Tax, entitlements};
//! use plimsoll_units::Pages;
//!
//! let client = |active| Client {
//!     reservation: Pages::ZERO,
//!     limit: Pages(256),
//!     shares: 1000,
//!     active: Pages(active),
//! };
//! let (idle, busy) = (client(0), client(256));
//!
//! let untaxed = entitlements(Pages(360), Tax::NONE, &[idle, busy]);
//! assert_eq!(untaxed, [Pages(180), Pages(180)]);
//!
//! // The busy VM has all that it can use, and the idle one the rest.
//! let taxed = entitlements(Pages(360), Tax::DEFAULT, &[idle, busy]);
//! assert_eq!(taxed, [Pages(104), Pages(256)]);
//! ```
//!
//! [`entitlements`] is [`divide`] without pools. In pools, shares divide among siblings only: the
//! number of VMs in one pool takes nothing from another.
//!
//! ```
//! use plimsoll_policy::{Client, Member, NamedPool, Pool, PoolTree, Tax, divide};
//! use plimsoll_units::Pages;
//!
//! # fn main() -> Result<(), plimsoll_policy::PoolError> {
//! let pool = |name: &str, shares| NamedPool {
//!     name: name.to_owned(),
//!     parent: None,
//!     pool: Pool { shares, reservation: Pages::ZERO, limit: None, expandable: true },
//! };
//! let pools = PoolTree::new(&[pool("prod", 2000), pool("test", 1000)])?;
//!
//! let client =
//!     Client { reservation: Pages::ZERO, limit: Pages(1024), shares: 1000, active: Pages(1024) };
//! let busy = |pool| Member { client, tax: None, pool: pools.find(pool).expect("it is in the tree") };
//! let vms = [busy("prod"), busy("test"), busy("test")];
//! let division = divide(Pages(1200), Tax::DEFAULT, &pools, &vms);
//! assert_eq!(division.vms, [Pages(800), Pages(200), Pages(200)]);
//! # Ok(())
//! # }
//! ```
//!
//! [`decide`] takes more of each VM ([`Vm`]) and of the host ([`Host`]): what it holds, waits for
//! and what its balloon does. Its result has such a division and what each mechanism is to take.

mod admission;
#[cfg(test)]
mod any_host;
mod balance;
mod balloon;
mod bounds;
mod charge;
mod client;
mod curve;
mod decision;
#[cfg(test)]
mod demo_host;
mod division;
mod entitlement;
mod estimator;
mod family;
mod fraction;
mod grants;
mod host;
mod inflation;
mod lending;
mod mechanisms;
mod member;
mod need;
mod paging;
mod party;
mod pool;
mod pool_limits;
mod precise_sum;
mod problem;
mod promises;
mod remedy;
mod reservations;
mod rules;
mod scan;
mod spare;
mod stall;
mod state;
mod target;
mod tax;
mod vm;

pub use admission::{Refusal, admit, overhead};
pub use balloon::Sizing;
pub use bounds::{EffectiveBounds, effective_bounds};
pub use charge::{SharedFrames, charge};
pub use client::Client;
pub use decision::{Decision, Outcome, PagingCause, PoolOutcome, Reclaim};
pub use division::{Cause, Division, Shortfall, divide, divide_reserving};
pub use entitlement::entitlements;
pub use estimator::{Estimate, Estimator, Sample, Stratum};
pub use grants::{CIRCULATING, Grants, Holder, LEEWAY, LONG_WAIT};
pub use host::Host;
pub use inflation::Inflation;
pub use mechanisms::{Mechanisms, Paging};
pub use member::Member;
pub use need::{Need, Signs};
pub use party::{Party, Stage};
pub use pool::{MAX_POOL_DEPTH, MAX_POOL_SHARES, NamedPool, Pool, PoolError, PoolId, PoolTree};
pub use problem::{PoolClaim, PoolShortfall, Problem, ProblemError, Solution, VmClaim};
pub use remedy::{Change, Remedy, remedies};
pub use reservations::{Claim, Overcommitment, Reservations, Short};
pub use rules::Rules;
pub use scan::{Gain, Scan, ScanHost, ScanVm, scan};
pub use spare::{Account, Spare};
pub use stall::{StallMeter, Stalls, host_averages};
pub use state::{State, States, Thresholds};
pub use target::decide;
pub use tax::Tax;
pub use vm::{Driver, Pageable, Vm};
