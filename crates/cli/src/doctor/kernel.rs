use std::io;

use super::{Check, read};
use crate::sys;

/// Oldest kernel that works: Debian 12's, the oldest that is tested.
const FLOOR: (u32, u32) = (6, 1);
/// Oldest kernel that works best: the first with `UFFDIO_MOVE`, which moves pages of guests without
/// a copy.
const BEST: (u32, u32) = (6, 8);

/// The kernel's version.
pub(super) fn version() -> Check {
    judge_version(&rustix::system::uname().release().to_string_lossy()).needed()
}

fn judge_version(release: &str) -> Check {
    let name = "kernel";
    let newer = "use Linux 6.8 or newer (Debian 13, or Debian 12 with backports)";
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= BEST => {
            Check::ok(name, format!("Linux {release}"))
        }
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= FLOOR => Check::limited(
            name,
            format!("Linux {release}"),
            "VMs run; pages are copied where newer kernels move them",
            newer,
        ),
        (Some(Ok(_)), Some(Ok(_))) => {
            Check::missing(name, format!("Linux {release}"), "too old: 6.1 is the oldest that works", newer)
        }
        _ => Check::limited(
            name,
            format!("{release:?} is no version that is known"),
            "untested: VMs may run",
            newer,
        ),
    }
}

/// Whether the kernel reports the states of many pages at once.
pub(super) fn pagemap_scan() -> Check {
    judge_scan(sys::pagemap::scan_works())
}

fn judge_scan(works: bool) -> Check {
    if works {
        Check::ok("pagemap-scan", "PAGEMAP_SCAN works")
    } else {
        Check::limited(
            "pagemap-scan",
            "no PAGEMAP_SCAN",
            "the states of pages are read one by one, which costs more",
            "use Linux 6.7 or newer",
        )
    }
}

/// Whether disks can do asynchronous I/O.
pub(super) fn io_uring() -> Check {
    judge_io_uring(sys::io_uring::try_setup(), read("/proc/sys/kernel/io_uring_disabled").as_deref())
}

fn judge_io_uring(setup: io::Result<()>, disabled: Option<&str>) -> Check {
    let name = "io-uring";
    let Err(error) = setup else { return Check::ok(name, "allowed") };
    let (found, todo) = match (error.kind(), disabled) {
        (io::ErrorKind::PermissionDenied, Some(value @ ("1" | "2"))) => (
            format!("forbidden: kernel.io_uring_disabled is {value}"),
            "allow it: sysctl kernel.io_uring_disabled=0",
        ),
        (io::ErrorKind::PermissionDenied, _) => (
            "forbidden, as container runtimes do".to_owned(),
            "allow io_uring_setup in the container's seccomp profile",
        ),
        _ => (format!("does not work: {error}"), "use a kernel with CONFIG_IO_URING"),
    };
    Check::limited(name, found, "disks read and write one request at a time", todo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn kernels_are_judged_by_their_numbers() {
        for (release, verdict) in [
            ("6.18.44-x", Verdict::Ok),
            ("6.8.0", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("6.1.0-30-cloud-amd64", Verdict::Limited),
            ("6.7-rc1", Verdict::Limited),
            ("5.15.0", Verdict::Missing),
            ("strange", Verdict::Limited),
        ] {
            assert_eq!(judge_version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn a_forbidden_io_uring_says_by_what() {
        let forbidden = || Err(io::Error::from_raw_os_error(libc::EPERM));
        assert!(judge_io_uring(forbidden(), Some("2")).todo.contains("sysctl"));
        assert!(judge_io_uring(forbidden(), Some("0")).todo.contains("seccomp"));
        assert!(
            judge_io_uring(Err(io::Error::from_raw_os_error(libc::ENOSYS)), None).todo.contains("CONFIG")
        );
        assert_eq!(judge_io_uring(Ok(()), None).verdict, Verdict::Ok);
    }
}
