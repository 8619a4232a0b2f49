//! Programs in guests, by the agent there: `exec` and `cp`.

mod connect;
mod execute;

pub(crate) use connect::connect;
pub(crate) use execute::{Input, execute};
