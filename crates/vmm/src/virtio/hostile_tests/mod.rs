//! Guests that mean harm: whatever they write to registers and queues, nothing panics, nothing
//! hangs, nothing but their own memory changes, and after a reset the device works again.
//!
//! `deed` is what a guest may do, `attacks` are any sequences of it on any device, `races` guests
//! that change rings while a device reads them, `breaches` each rule broken by itself, `limits`
//! what must stay bounded or go on.

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod breaches;
mod deed;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod races;
mod victim;

use super::testing::DATA;
use victim::Victim;

/// Where indirect tables are.
const TABLE: u64 = DATA + 0x8000;
