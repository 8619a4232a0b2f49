//! Guests that mean harm: whatever they write to registers and queues, nothing panics, nothing
//! hangs, nothing but their own memory changes, and after a reset the device works again.
//!
//! `attacks` are any sequences of deeds on any device, `races` guests that change rings while a
//! device reads them, `breaches` each rule broken by itself, `limits` what must stay bounded or go
//! on.

mod attacks;
mod breaches;
mod limits;
mod races;
mod victim;

use super::testing::DATA;
use victim::Victim;

/// Where indirect tables are.
const TABLE: u64 = DATA + 0x8000;
