//! Who gets how much memory.
//!
//! Pure arithmetic after Waldspurger 2002, sections 5 and 6, and ESXi's public documentation. Facts
//! come in as arguments, decisions go out as values: this crate never does I/O, reads no clock,
//! starts no thread and keeps no state but what its caller holds ([`Estimator`], [`Need`],
//! [`Spare`], [`States`], [`Gain`], [`Stalls`]). It never learns what a system call is.
//!
//! Start with [`divide`], which divides memory among VMs in a tree of resource pools. [`decide`]
//! turns that into what each VM's balloon and every other mechanism is to do. [`Grants`] says what
//! a VM that waits may have at once, [`remedies`] what would have to change for a VM to get more.
//! [`Reservations`] says who may power on and what may be reserved, [`fn@charge`] what counts as
//! held, [`fn@scan`] how much VMs look for pages that can be shared.
//!
//! # Example
//!
//! An idle and a busy VM of 256 pages and equal shares on a machine of 360 pages. Without a tax on
//! idle memory each has half of it. With the tax of 75 % an idle page costs as much as four active
//! ones, so most of it goes to the VM that uses it (Waldspurger 2002, section 5.3).
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
//! // The busy VM has all that it can use, and the idle one what is left.
//! let taxed = entitlements(Pages(360), Tax::DEFAULT, &[idle, busy]);
//! assert_eq!(taxed, [Pages(104), Pages(256)]);
//! ```

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
pub use grants::{CIRCULATING, Grants, Holder, LEEWAY, PATIENCE};
pub use host::Host;
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
