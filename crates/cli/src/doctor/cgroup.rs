use std::io;
use std::path::PathBuf;

use plimsoll_machine::limit;
use plimsoll_protocol::definition::JailPart;
use rustix::fs::Access;

use super::{Check, privilege, read};

const NAME: &str = "cgroup";
/// What plimsolld limits VMs' processes by.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Whether a VM's process can get a control group of its own.
pub(super) fn check() -> Check {
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let group = own_group(&mounts, &own).map(|path| Group {
        controllers: std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default(),
        writable: rustix::fs::access(&path, Access::WRITE_OK).map_err(io::Error::from),
        path,
    });
    judge(group).jail(JailPart::Cgroup)
}

/// The control group (version 2) that this process is in; the daemon makes those of VMs below its
/// own.
struct Group {
    path: PathBuf,
    controllers: String,
    writable: io::Result<()>,
}

/// Where it is: in the first mount of cgroup v2, which on some hosts stands beside version 1.
/// Nothing can be made in a group outside of what a container sees.
fn own_group(mounts: &str, own: &str) -> Option<PathBuf> {
    limit::unified(mounts, own).into_iter().next()
}

fn judge(group: Option<Group>) -> Check {
    let missing = |found: String, todo: &str| {
        let means = "VMs get no control groups of their own, by which their processes are counted and ended";
        Check::missing(NAME, found, means, &format!("{todo}, {}", privilege::allow(JailPart::Cgroup)))
    };
    let Some(Group { path, controllers, writable }) = group else {
        return missing(
            "no cgroup v2 is mounted".to_owned(),
            "boot without cgroup v1, or mount -t cgroup2 none /sys/fs/cgroup",
        );
    };
    let shown = path.display();
    match writable {
        Err(error) => missing(
            format!("cgroup v2 at {shown} cannot be written: {error}"),
            "run plimsolld as root, with cgroups writable where this is a container",
        ),
        Ok(()) => {
            let there: Vec<&str> = controllers.split_ascii_whitespace().collect();
            let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|c| !there.contains(c)).collect();
            if lacking.is_empty() {
                return Check::ok(
                    NAME,
                    format!("v2 at {shown} is writable, with {}", CONTROLLERS.join(", ")),
                );
            }
            Check::limited(
                NAME,
                format!("cgroup v2 at {shown} is writable, without the controllers {}", lacking.join(", ")),
                "the kernel does not limit the memory of VMs' processes: plimsolld ends one that takes more, \
                 some seconds later",
                "boot without cgroup v1, and run plimsolld in a group that has them: Delegate=yes, DelegateSubgroup=daemon and \
                 KillMode=process in its systemd unit, or write +memory +pids +cpu to cgroup.subtree_control of the groups above",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn group(controllers: &str, writable: io::Result<()>) -> Check {
        judge(Some(Group { path: "/g".into(), controllers: controllers.to_owned(), writable }))
    }

    #[test]
    fn the_group_is_found_beside_version_1_too() {
        let hybrid = "24 1 0:2 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      25 24 0:3 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(own_group(hybrid, "1:cpu:/\n0::/a/b\n"), Some("/sys/fs/cgroup/unified/a/b".into()));
        assert_eq!(own_group(hybrid, "0::/"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(own_group(hybrid, "0::/../outside"), None);
        assert_eq!(own_group("24 1 0:2 / /sys/fs/cgroup rw - tmpfs tmpfs rw", "0::/"), None);
    }

    #[test]
    fn what_is_missing_can_be_allowed_and_no_memory_is_a_limit() {
        for check in [judge(None), group("memory", Err(io::Error::from_raw_os_error(libc::EROFS)))] {
            assert_eq!(check.verdict, Verdict::Missing);
            assert!(check.todo.contains("allow_missing = [\"cgroup\"]"), "{check:?}");
        }
        let limited = group("cpu io", Ok(()));
        assert_eq!(limited.verdict, Verdict::Limited);
        assert!(format!("{limited:?}").contains("without the controllers memory, pids"), "{limited:?}");
        assert_eq!(group("cpu memory pids", Ok(())).verdict, Verdict::Ok);
    }
}
