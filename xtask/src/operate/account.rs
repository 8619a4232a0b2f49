//! How things stand: what a person would look at next when something has failed.

use std::ffi::OsStr;
use std::fmt;
use std::fs;

use super::Stage;

/// Lines of a guest's console: enough for an oops of its kernel from the first line on.
pub(super) const CONSOLE_TAIL: usize = 80;

/// Lines of the daemon's log: what it did in the last minute.
const DAEMON_TAIL: usize = 60;

/// What each VM has and why, and what guests and daemon said last. It is the context of an error:
/// before it is added to one, check that the error does not have it already.
#[derive(Debug)]
pub(crate) struct Account(String);

impl Account {
    /// How things stand on `stage`, as far as that can be learned.
    pub(super) fn of(stage: &Stage) -> Self {
        let mut text = "how things stood:\n".to_owned();
        let known = stage.vms();
        for name in known.iter().flatten().map(|vm| vm.name.as_str()) {
            text += &stage.plimsoll(&["explain", name]).map_or_else(
                |error| format!("plimsoll explain {name}: {error:#}\n"),
                |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            );
            text.push('\n');
        }
        if let Err(error) = &known {
            text += &format!("the daemon does not answer: {error:#}\n");
        }
        for name in consoles(stage) {
            text += &format!("the console of {name} said last:\n{}\n\n", stage.console_tail(&name));
        }
        text += &format!("the daemon said last:\n{}\n", tail(&stage.daemon_log(), DAEMON_TAIL));
        Self(text)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The error's cause follows.
        write!(f, "{}\nwhat failed", self.0)
    }
}

/// The names of VMs that have written to a console, the daemon's help not needed.
fn consoles(stage: &Stage) -> Vec<String> {
    let files = fs::read_dir(stage.logs()).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension() == Some(OsStr::new(super::CONSOLE)));
    let mut names: Vec<String> =
        files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// The last `count` lines of `log` that are not empty.
pub(super) fn tail(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, anyhow};

    use super::*;

    #[test]
    fn an_account_is_found_below_other_contexts() {
        let error: Result<()> = Err(anyhow!("the guest did not answer"));
        let error = error.context(Account("guest1 holds 3MiB".to_owned())).context("guest1").unwrap_err();
        assert!(error.downcast_ref::<Account>().is_some());
        let text = format!("{error:#}");
        assert_eq!(text, "guest1: guest1 holds 3MiB\nwhat failed: the guest did not answer");
    }

    #[test]
    fn the_last_lines_are_taken_and_empty_ones_left_out() {
        assert_eq!(tail("a\n\nb\n \nc\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }
}
