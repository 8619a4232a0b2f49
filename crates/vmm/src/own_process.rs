//! Tests that change a limit of their process, in a process of their own.

use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process of such a test.
const INSIDE: &str = "PLIMSOLL_TEST_OWN_PROCESS";

/// Runs the test `path` in a process of its own. Returns true there, and false in the caller once
/// it has passed there.
pub(crate) fn is_own(path: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", path]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Lowers the limit of open files so that the process can open none. Returns the limit before.
pub(crate) fn use_up_descriptors() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    // The lowest number that is free is the next that the kernel gives.
    let free = rustix::io::dup(std::io::stderr()).unwrap().as_raw_fd();
    let current = Some(u64::try_from(free).unwrap());
    setrlimit(Resource::Nofile, Rlimit { current, maximum: before.maximum }).unwrap();
    before
}

/// Sets the limit of open files.
pub(crate) fn limit_descriptors(limit: Rlimit) {
    setrlimit(Resource::Nofile, limit).unwrap();
}
