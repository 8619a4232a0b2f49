//! The files of a daemon of ours. They can be read whether it answers or not.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a guest's console: enough for an oops of its kernel from the first line on.
const CONSOLE_TAIL: usize = 80;

/// Lines of the daemon's log: what it did in the last minute.
const DAEMON_TAIL: usize = 60;

/// The suffix of a guest's console among the daemon's logs.
const CONSOLE: &str = "console";

/// A daemon's directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    /// The files of a daemon that keeps them below `directory`.
    pub(crate) fn below(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("run/plimsoll.sock")
    }

    /// The file of the daemon's messages.
    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.directory.join("plimsolld.log")
    }

    /// All that the daemon wrote; nothing where there is no file.
    pub(crate) fn daemon_messages(&self) -> String {
        fs::read_to_string(self.daemon_log()).unwrap_or_default()
    }

    /// The end of that.
    pub(crate) fn daemon_tail(&self) -> String {
        tail(&self.daemon_messages(), DAEMON_TAIL)
    }

    /// The end of what the guest `name` wrote to its console, or why it cannot be read.
    pub(crate) fn console_tail(&self, name: &str) -> String {
        let log = fs::read(self.logs().join(format!("{name}.{CONSOLE}")));
        let log =
            log.map_or_else(|error| format!("({error})"), |log| String::from_utf8_lossy(&log).into_owned());
        tail(&log, CONSOLE_TAIL)
    }

    /// The names of VMs that have written to a console.
    pub(crate) fn consoles(&self) -> Vec<String> {
        let files = fs::read_dir(self.logs()).into_iter().flatten().flatten().map(|entry| entry.path());
        let files = files.filter(|path| path.extension() == Some(OsStr::new(CONSOLE)));
        let mut names: Vec<String> =
            files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
        names.sort();
        names
    }

    /// Where the daemon keeps the logs of its VMs.
    fn logs(&self) -> PathBuf {
        self.directory.join("state/logs")
    }
}

/// The last `count` lines of `log` that are not empty.
fn tail(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_taken_and_empty_ones_left_out() {
        assert_eq!(tail("a\n\nb\n \nc\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn consoles_are_found_without_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::below(directory.path());
        assert!(files.consoles().is_empty() && files.daemon_messages().is_empty());
        fs::create_dir_all(files.logs()).unwrap();
        for name in ["two.console", "one.console", "one.log"] {
            fs::write(files.logs().join(name), "login:\n").unwrap();
        }
        assert_eq!(files.consoles(), ["one", "two"]);
        assert_eq!(files.console_tail("one"), "login:");
        assert!(files.console_tail("three").starts_with('('));
    }
}
