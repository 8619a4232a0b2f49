use std::fmt;

/// Why a command failed, as scripts see it: its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Other = 1,
    Invalid = 2,
    Unknown = 3,
    Conflict = 4,
    Refused = 5,
    NoDaemon = 6,
    Unsaved = 7,
}

/// The table of the help and of the README.
pub(crate) const HELP: &str = "\
Exit status:
  0  success
  1  any other failure, such as a time that has run out
  2  the command line, a definition or a value is invalid
  3  there is no such VM or pool
  4  the state of the VM or pool does not allow it: it is on, or off, or its name is taken
  5  the host refuses: not enough memory, or a file or device cannot be used
  6  the daemon does not answer, or denies access
  7  done, but not saved: it is lost if plimsolld ends before the disk has room
Of several VMs the first that failed decides.";

/// The error of a command whose failures have all been reported. Its status is the exit status.
#[derive(Debug)]
pub(crate) struct AlreadyReported(pub(crate) Status);

impl fmt::Display for AlreadyReported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("some of it failed")
    }
}

impl std::error::Error for AlreadyReported {}

impl Status {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// An error with its exit status.
#[derive(Debug)]
struct Failure {
    status: Status,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The error `text`, with which the command ends as `status`.
pub(crate) fn failed(status: Status, text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Failure { status, text: text.into() })
}

/// The exit status for an error.
pub(crate) fn status_of(error: &anyhow::Error) -> Status {
    error.downcast_ref::<Failure>().map_or(Status::Other, |failure| failure.status)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_status_outlives_what_is_added_to_its_error() {
        let error = Err::<(), _>(failed(Status::Unknown, "no VM a")).context("stopping a").unwrap_err();
        assert_eq!(status_of(&error), Status::Unknown);
        assert_eq!(format!("{error:#}"), "stopping a: no VM a");
        assert_eq!(status_of(&anyhow::anyhow!("x")), Status::Other);
    }

    #[test]
    fn the_readme_has_the_table_of_the_help() {
        let readme = include_str!("../../../README.md");
        for line in HELP.lines().filter_map(|line| line.strip_prefix("  ")) {
            let (code, meaning) = line.split_once("  ").unwrap();
            assert!(readme.contains(&format!("\n| {code} | {meaning} |\n")), "{line}");
        }
        let all = [
            Status::Other,
            Status::Invalid,
            Status::Unknown,
            Status::Conflict,
            Status::Refused,
            Status::NoDaemon,
            Status::Unsaved,
        ];
        for status in all {
            assert!(HELP.contains(&format!("\n  {}  ", status.code())), "{status:?}");
        }
    }
}
