use std::io;

use plimsoll_protocol::definition::JailPart;

use super::{Check, read};
use crate::sys;

const TUN: &str = "/dev/net/tun";

/// How a missing part of the jail is lived with.
pub(super) fn allow(part: JailPart) -> String {
    format!("or allow it in definitions: jail.allow_missing = [\"{part}\"]")
}

/// Whether each VM's process can get a user of its own.
pub(super) fn user() -> Check {
    judge_user(rustix::process::geteuid().as_raw()).jail(JailPart::Uid)
}

fn judge_user(uid: u32) -> Check {
    if uid == 0 {
        return Check::ok("user", "root: every VM's process gets a user of its own");
    }
    Check::missing(
        "user",
        format!("uid {uid}"),
        "a daemon run by this user cannot give VMs users of their own",
        &format!("run plimsolld as root, {}", allow(JailPart::Uid)),
    )
}

/// Whether system calls of a VM's process can be filtered.
pub(super) fn seccomp() -> Check {
    judge_seccomp(read("/proc/sys/kernel/seccomp/actions_avail").as_deref()).jail(JailPart::Seccomp)
}

fn judge_seccomp(actions: Option<&str>) -> Check {
    let has = |action| actions.is_some_and(|text| text.split_ascii_whitespace().any(|a| a == action));
    if has("kill_process") {
        return Check::ok("seccomp", "filters work");
    }
    Check::missing(
        "seccomp",
        "no seccomp filters",
        "a guest that breaks into its process may use every system call",
        &format!("use a kernel with CONFIG_SECCOMP_FILTER, {}", allow(JailPart::Seccomp)),
    )
}

/// Whether a VM's process can be kept from the file system: by Landlock, by an empty root
/// directory, or best by both.
pub(super) fn landlock() -> Check {
    judge_landlock(sys::landlock::version(), rustix::process::geteuid().is_root()).jail(JailPart::Filesystem)
}

fn judge_landlock(version: io::Result<i64>, root: bool) -> Check {
    let version = match version {
        Ok(version) => return Check::ok("landlock", format!("version {version}")),
        Err(error) => error,
    };
    let (found, todo) = if version.raw_os_error() == Some(libc::EOPNOTSUPP) {
        ("built in, but off", "boot with landlock among the modules of lsm=")
    } else {
        ("none", "use a kernel with CONFIG_SECURITY_LANDLOCK")
    };
    if root {
        let means = "only an empty root directory keeps processes of VMs from the file system";
        return Check::limited("landlock", found, means, todo);
    }
    Check::missing(
        "landlock",
        format!("{found}, and no right to change the root directory"),
        "a guest that breaks into its process may open every file that the daemon's user may",
        &format!("{todo}, or run plimsolld as root, {}", allow(JailPart::Filesystem)),
    )
}

/// Whether guests can have network interfaces.
pub(super) fn tun() -> Check {
    judge_tun(std::fs::File::options().read(true).write(true).open(TUN).map(drop))
}

fn judge_tun(opened: io::Result<()>) -> Check {
    let Err(error) = opened else { return Check::ok("tun", format!("{TUN} opens")) };
    let todo = if error.kind() == io::ErrorKind::PermissionDenied {
        "run as root, or give this user the right to read and write the device"
    } else {
        "load the module (modprobe tun), or give the device to this container"
    };
    Check::missing("tun", format!("{TUN} does not open: {error}"), "VMs with a [[net]] do not start", todo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn what_the_jail_lacks_can_be_allowed_by_name() {
        for (check, part) in [
            (judge_user(1000), "uid"),
            (judge_seccomp(None), "seccomp"),
            (judge_landlock(Err(error(libc::ENOSYS)), false), "filesystem"),
        ] {
            assert_eq!(check.verdict, Verdict::Missing);
            assert!(check.todo.contains(&format!("allow_missing = [\"{part}\"]")), "{check:?}");
        }
    }

    #[test]
    fn the_rest_is_judged_by_what_failed() {
        assert!(judge_landlock(Err(error(libc::EOPNOTSUPP)), true).todo.contains("lsm="));
        assert!(judge_landlock(Err(error(libc::ENOSYS)), true).todo.contains("CONFIG"));
        assert!(judge_tun(Err(error(libc::EACCES))).todo.contains("root"));
        assert!(judge_tun(Err(error(libc::ENOENT))).todo.contains("modprobe"));
        assert_eq!(judge_seccomp(Some("kill_process kill_thread")).verdict, Verdict::Ok);
        assert_eq!(judge_user(0).verdict, Verdict::Ok);
    }
}
