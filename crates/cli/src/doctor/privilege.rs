use std::io;
use std::path::{Path, PathBuf};

use plimsoll_protocol::definition::JailPart;
use rustix::fs::Access;

use super::{Check, read};
use crate::sys;

const TUN: &str = "/dev/net/tun";
const CGROUPS: &str = "/sys/fs/cgroup";

/// How a missing part of the jail is lived with.
fn allow(part: JailPart) -> String {
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
        "a daemon of this user gives VMs no users of their own",
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

/// Whether a VM's process can be kept from the file system.
pub(super) fn landlock() -> Check {
    judge_landlock(sys::landlock::version())
}

fn judge_landlock(version: io::Result<i64>) -> Check {
    let version = match version {
        Ok(version) => return Check::ok("landlock", format!("version {version}")),
        Err(error) => error,
    };
    let (found, todo) = if version.raw_os_error() == Some(libc::EOPNOTSUPP) {
        ("built in, but off", "boot with landlock among the modules of lsm=")
    } else {
        ("none", "use a kernel with CONFIG_SECURITY_LANDLOCK")
    };
    let means = "processes of VMs are kept from the file system by chroot alone, which needs root";
    Check::limited("landlock", found, means, todo)
}

/// Whether a VM's process can get a control group of its own.
pub(super) fn cgroup() -> Check {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let directory = PathBuf::from(format!("{CGROUPS}{}", own.trim_end_matches('/')));
    // In a container the own group may be shown by a path that is outside of what is mounted.
    let directory = if directory.exists() { directory } else { CGROUPS.into() };
    let controllers = std::fs::read_to_string(directory.join("cgroup.controllers")).ok();
    let writable = rustix::fs::access(&directory, Access::WRITE_OK).map_err(io::Error::from);
    judge_cgroup(controllers.as_deref(), writable, &directory).jail(JailPart::Cgroup)
}

fn judge_cgroup(controllers: Option<&str>, writable: io::Result<()>, directory: &Path) -> Check {
    let name = "cgroup";
    let shown = directory.display();
    let means = "VMs get no control groups of their own: nothing backs up the limits of their processes";
    let missing = |found: String, todo: &str| {
        Check::missing(name, found, means, &format!("{todo}, {}", allow(JailPart::Cgroup)))
    };
    match (controllers, writable) {
        (None, _) => missing(
            format!("no cgroup v2 at {shown}"),
            "mount it (mount -t cgroup2 none /sys/fs/cgroup), or boot without cgroup v1",
        ),
        (Some(_), Err(error)) => missing(
            format!("cgroup v2 at {shown} cannot be written: {error}"),
            "run as root, with /sys/fs/cgroup writable in this container",
        ),
        (Some(text), Ok(())) if !text.split_ascii_whitespace().any(|c| c == "memory") => Check::limited(
            name,
            format!("cgroup v2 at {shown} has no memory controller"),
            "nothing backs up the memory limits of VMs' processes",
            "delegate it: echo +memory into cgroup.subtree_control of the groups above",
        ),
        (Some(_), Ok(())) => Check::ok(name, format!("v2 at {shown}, writable, with memory")),
    }
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
        let directory = Path::new("/g");
        for (check, part) in [
            (judge_user(1000), "uid"),
            (judge_seccomp(None), "seccomp"),
            (judge_cgroup(None, Ok(()), directory), "cgroup"),
            (judge_cgroup(Some("memory"), Err(error(libc::EROFS)), directory), "cgroup"),
        ] {
            assert_eq!(check.verdict, Verdict::Missing);
            assert!(check.todo.contains(&format!("allow_missing = [\"{part}\"]")), "{check:?}");
        }
    }

    #[test]
    fn a_cgroup_without_memory_is_limited() {
        let directory = Path::new("/g");
        assert_eq!(judge_cgroup(Some("cpu io"), Ok(()), directory).verdict, Verdict::Limited);
        assert_eq!(judge_cgroup(Some("cpu memory"), Ok(()), directory).verdict, Verdict::Ok);
    }

    #[test]
    fn the_rest_is_judged_by_what_failed() {
        assert!(judge_landlock(Err(error(libc::EOPNOTSUPP))).todo.contains("lsm="));
        assert!(judge_landlock(Err(error(libc::ENOSYS))).todo.contains("CONFIG"));
        assert!(judge_tun(Err(error(libc::EACCES))).todo.contains("root"));
        assert!(judge_tun(Err(error(libc::ENOENT))).todo.contains("modprobe"));
        assert_eq!(judge_seccomp(Some("kill_process kill_thread")).verdict, Verdict::Ok);
        assert_eq!(judge_user(0).verdict, Verdict::Ok);
    }
}
