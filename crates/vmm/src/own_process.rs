//! Tests in a process of their own. Some change what belongs to all of a process, others need one
//! with few threads.

use std::os::fd::AsRawFd;
use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process of such a test.
pub(crate) const INSIDE: &str = "PLIMSOLL_TEST_OWN_PROCESS";

/// Whether this is the process of one test alone.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What runs the test `path` in a process of its own.
pub(crate) fn command(path: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", path, "--nocapture"]).env(INSIDE, "1");
    command
}

/// Runs the test `path` in a process of its own. Returns true there, and false in the caller once
/// it has passed there.
pub(crate) fn is_own(path: &str) -> bool {
    if is_inside() {
        return true;
    }
    let output = command(path).output().unwrap();
    let said = text(&output);
    // Where no test has that name, all of none pass.
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// All that a process has written.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
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
