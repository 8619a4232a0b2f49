//! The locks and atomics that this crate's threads meet at: those of `std`, or, where the model check decides which thread
//! runs when, shuttle's.

#[cfg(all(test, feature = "model-check"))]
pub(crate) use shuttle::sync::*;
#[cfg(not(all(test, feature = "model-check")))]
pub(crate) use std::sync::*;
