//! Campaigns: long runs against a daemon with model guests, at native speed. They look for what
//! shows only in the long run or by chance.
//!
//! A campaign is a command line of `xtask`. It prints its seed, judges at its end, and fails with
//! what it found. Start reading at [`Campaign`].

mod campaign;
pub mod kill;
mod soak;

pub use campaign::Campaign;
