//! Other programs of the guest, run by its shell.

use std::io;
use std::process::{Command, Stdio};

use crate::libc_power;

/// Runs `line` to its end. Returns its exit status and the last line of what it wrote, to either
/// output.
pub(crate) fn run(line: &str) -> io::Result<(i32, String)> {
    // One pipe for both outputs would need a lock between them; the shell joins them before
    // anything is written.
    let joined = format!("exec 2>&1\n{line}");
    let output = Command::new("sh").args(["-c", &joined]).stdin(Stdio::null()).output()?;
    libc_power::reap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // A program that a signal ended has no status; shells call that 128 and more.
    Ok((output.status.code().unwrap_or(128), last.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_program_are_kept_whichever_output_they_went_to() {
        assert_eq!(run("echo a; echo b >&2; echo; exit 3").unwrap(), (3, "b".to_owned()));
        assert_eq!(run("true").unwrap(), (0, String::new()));
    }
}
