//! The inside of the lab: its first process ([`init`]) and the [`agent`] that runs commands.

pub mod agent;
pub mod init;
mod linux_boot;
