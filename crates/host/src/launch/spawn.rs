//! Starting the VMM's program, through fork and exec.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plimsoll_protocol::VmName;
use plimsoll_protocol::control::CONTROL_FD;

use super::pre_exec::in_session_of_its_own;
use crate::oom;

/// Occupies [`CONTROL_FD`] in this process for as long as it runs, before anything else opens a
/// file: the duplicate that a child makes there must not land on a descriptor that the standard
/// library uses between fork and exec.
///
/// # Errors
/// `/dev/null` cannot be opened.
pub(crate) fn reserve_control_fd() -> std::io::Result<Option<File>> {
    // The lowest free number is given; if it is another, CONTROL_FD is taken already.
    let null = File::open("/dev/null")?;
    Ok((null.as_raw_fd() == CONTROL_FD).then_some(null))
}

/// Starts `program` in a session of its own, with `control` as its [`CONTROL_FD`] and `log` as its
/// standard error. It outlives the daemon.
///
/// # Errors
/// The program cannot be started.
pub(super) fn spawn(
    program: &Path,
    log_filter: &str,
    name: &VmName,
    control: OwnedFd,
    log: File,
) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command
        .arg0(format!("plimsoll-vmm {name}"))
        .env_clear()
        .env(plimsoll_log::FILTER_VARIABLE, log_filter)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let child = in_session_of_its_own(&mut command, &control).spawn();
    let child = child.map_err(|e| {
        let advice = advice(&e);
        anyhow::Error::from(e).context(format!("cannot start {}{advice}", program.display()))
    });
    drop(control);
    child.inspect(|child| oom::end_as_others(child.id()))
}

/// What to do where the kernel has no room for one more process.
fn advice(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            " (the host has too many processes or threads: raise kernel.threads-max, kernel.pid_max or the pids.max of \
             plimsolld's control group, or stop a VM)"
        }
        Some(libc::ENOMEM) => {
            " (the kernel has no memory for another process: lower the budget, or stop a VM)"
        }
        Some(libc::ENFILE) => " (the host has too many files open: raise fs.file-max, or stop a VM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_named() {
        let advice = |code| advice(&std::io::Error::from_raw_os_error(code));
        assert!(advice(libc::EAGAIN).contains("kernel.threads-max"));
        assert!(advice(libc::ENOMEM).contains("no memory"));
        assert!(advice(libc::ENFILE).contains("fs.file-max"));
        assert_eq!(advice(libc::ENOENT), "");
    }
}
