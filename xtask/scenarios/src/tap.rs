//! Tap devices for scenarios.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Makes the tap device `name`, unless there is one, and returns its name. Needs root.
pub(crate) fn make(name: &str) -> Result<String> {
    if !Path::new("/sys/class/net").join(name).exists() {
        // Busybox's ip has no tuntap; its tunctl makes the device persistent.
        let output = Command::new("tunctl").args(["-t", name]).stdin(Stdio::null()).output();
        let output = output.context("starting tunctl")?;
        ensure!(
            output.status.success(),
            "tunctl -t {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(name.to_owned())
}
