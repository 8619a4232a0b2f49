use std::io;

use super::Check;
use crate::sys::userfaultfd::{self, DEVICE, MOVE, WP_ASYNC, WP_UNPOPULATED, WRITE_PROTECT};

const NAME: &str = "userfaultfd";

/// Whether the faults of guests can be taken, and how well.
pub(super) fn check() -> Check {
    judge(userfaultfd::features()).needed()
}

fn judge(features: io::Result<u64>) -> Check {
    let none = "no VM runs: its memory is granted fault by fault";
    match features {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::missing(
            NAME,
            format!("no {DEVICE}"),
            none,
            "use a kernel of Linux 6.1 or newer with CONFIG_USERFAULTFD, or give the device to this container",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::missing(
            NAME,
            format!("no right to use {DEVICE}"),
            none,
            "run as root, or give this user the right to read and write the device",
        ),
        Err(error) => Check::missing(
            NAME,
            format!("{DEVICE} does not work: {error}"),
            none,
            "see dmesg; use another kernel",
        ),
        Ok(features) if features & WRITE_PROTECT == 0 => Check::missing(
            NAME,
            format!("missing faults, but no write protection (features {features:#x})"),
            none,
            "use a kernel with CONFIG_HAVE_ARCH_USERFAULTFD_WP (x86-64 has it)",
        ),
        Ok(features) => judge_features(features),
    }
}

fn judge_features(features: u64) -> Check {
    let optional =
        [(MOVE, "MOVE", "6.8"), (WP_ASYNC, "WP_ASYNC", "6.7"), (WP_UNPOPULATED, "WP_UNPOPULATED", "6.4")];
    let names = |present: bool| {
        let some = optional.iter().filter(|(bit, ..)| (features & bit != 0) == present);
        some.map(|(_, name, _)| *name).collect::<Vec<_>>()
    };
    let found = [vec!["MISSING", "WP"], names(true)].concat().join(", ");
    match optional.iter().find(|(bit, ..)| features & bit == 0) {
        None => Check::ok(NAME, found),
        Some((_, _, version)) => Check::limited(
            NAME,
            format!("{found}; no {}", names(false).join(", ")),
            "pages are copied where they could be moved or watched at less cost",
            &format!("use a kernel of Linux {version} or newer"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const ALL: u64 = WRITE_PROTECT | WP_UNPOPULATED | WP_ASYNC | MOVE;

    #[test]
    fn features_are_named_and_what_is_absent_has_its_kernel() {
        assert_eq!(judge(Ok(ALL)), Check::ok(NAME, "MISSING, WP, MOVE, WP_ASYNC, WP_UNPOPULATED"));
        let old = judge(Ok(WRITE_PROTECT));
        assert_eq!(old.verdict, Verdict::Limited);
        assert_eq!(old.found, "MISSING, WP; no MOVE, WP_ASYNC, WP_UNPOPULATED");
        assert!(old.todo.contains("6.8"), "{old:?}");
        assert!(judge(Ok(ALL & !MOVE)).todo.contains("6.8"));
    }

    #[test]
    fn without_write_protection_or_device_no_vm_runs() {
        for features in [
            Ok(0),
            Err(io::ErrorKind::NotFound.into()),
            Err(io::ErrorKind::PermissionDenied.into()),
            Err(io::Error::from_raw_os_error(libc::EINVAL)),
        ] {
            let check = judge(features).needed();
            assert!(check.prevents_vms() && !check.todo.is_empty(), "{check:?}");
        }
    }
}
