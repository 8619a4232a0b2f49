//! Tap devices for scenarios.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use plimsoll_lab::command;

/// Makes the tap device `name`, unless there is one, and returns its name. Needs root.
pub(crate) fn make(name: &str) -> Result<String> {
    if !Path::new("/sys/class/net").join(name).exists() {
        // Busybox's ip has no tuntap; its tunctl makes the device persistent.
        command::run(Command::new("tunctl").args(["-t", name]))?;
    }
    Ok(name.to_owned())
}
