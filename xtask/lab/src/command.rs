//! Programs of this machine that run to their end, quietly.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use preflight::program;

/// Runs `command` without input.
///
/// # Errors
/// It cannot be started, or fails; its messages are in the error.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What `command` writes to its standard output.
///
/// # Errors
/// As of [`run`].
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", why.trim());
    Ok(output.stdout)
}

/// A `mke2fs` that makes an ext4 file system for a disk, all of it for its user. Its other
/// arguments are to be added.
///
/// # Errors
/// It is not installed.
pub fn mke2fs() -> Result<Command> {
    let mut command = Command::new(program::find("mke2fs").context("mke2fs not found: install e2fsprogs")?);
    command.args(["-q", "-F", "-t", "ext4", "-m", "0"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_returned_or_is_in_the_error() {
        assert_eq!(output(Command::new("echo").arg("this")).unwrap(), b"this\n");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; false"])).unwrap_err();
        assert!(error.to_string().ends_with("failed: why"), "{error}");
    }
}
