use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The unit, which starts the program where [`PROGRAM`] is.
const UNIT: &str = include_str!("../plimsoll-agent.service");
const UNIT_FILE: &str = "/etc/systemd/system/plimsoll-agent.service";
/// Where the program stays.
const PROGRAM: &str = "/usr/local/sbin/plimsoll-agent";

/// Installs this program as a service that starts with the guest, and starts it now.
///
/// # Errors
/// What failed, on what.
pub(crate) fn install() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    if own != Path::new(PROGRAM) {
        replace(&own).map_err(|e| format!("{PROGRAM}: {e}"))?;
    }
    fs::write(UNIT_FILE, UNIT).map_err(|e| format!("{UNIT_FILE}: {e}"))?;
    for arguments in [&["daemon-reload"][..], &["enable", "plimsoll-agent"], &["restart", "plimsoll-agent"]] {
        let status = Command::new("systemctl").args(arguments).status();
        let status = status.map_err(|e| format!("systemctl cannot be run: {e}"))?;
        if !status.success() {
            return Err(format!("systemctl {}: {status}", arguments.join(" ")));
        }
    }
    Ok(())
}

/// Puts the program in its place, also where it runs there.
fn replace(own: &Path) -> io::Result<()> {
    let new = format!("{PROGRAM}.new");
    fs::copy(own, &new)?;
    fs::rename(new, PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_program_where_it_is_installed() {
        assert!(UNIT.lines().any(|line| line == format!("ExecStart={PROGRAM}")));
    }
}
