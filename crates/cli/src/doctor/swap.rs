use std::path::{Path, PathBuf};

use plimsoll_machine::medium::memory_under;
use plimsoll_units::Bytes;

use super::{Check, read};

/// The daemon's configuration file by default.
const CONFIGURATION: &str = "/etc/plimsoll/plimsolld.toml";
/// The default directory of swap space, and the directory above it.
const DEFAULT: [&str; 2] = ["/var/lib/plimsoll/swap", "/var/lib"];

const NAME: &str = "swap-space";
const WITHOUT: &str =
    "VMs run; memory that balloons, sharing and compression cannot reclaim stays with its VM";
const REFUSED: &str = "plimsolld does not start";

/// Whether pages of VMs can be swapped out.
pub(super) fn check() -> Check {
    let settings = read(CONFIGURATION);
    match settings.as_deref().and_then(directory) {
        Some(directory) => judge(&directory, look(&directory), REFUSED),
        // The daemon makes it when it starts.
        None => judge(Path::new(DEFAULT[0]), DEFAULT.iter().find_map(|path| look(Path::new(path))), WITHOUT),
    }
}

/// The key `swap_directory` of the daemon's settings.
fn directory(settings: &str) -> Option<PathBuf> {
    let settings: toml::Table = toml::from_str(settings).ok()?;
    Some(settings.get("swap_directory")?.as_str()?.into())
}

/// What is free there, and whether it is in memory; `None` where there is no such directory.
fn look(directory: &Path) -> Option<(Bytes, bool)> {
    let stat = rustix::fs::statfs(directory).ok().filter(|_| directory.is_dir())?;
    let block = u64::try_from(stat.f_bsize).unwrap_or(0);
    Some((Bytes(stat.f_bavail.saturating_mul(block)), memory_under(directory).is_some()))
}

/// `in_memory`: the consequence of a directory in memory.
fn judge(directory: &Path, found: Option<(Bytes, bool)>, in_memory: &str) -> Check {
    let where_ = directory.display();
    match found {
        None => Check::missing(
            NAME,
            format!("swap_directory {where_}: there is no such directory"),
            REFUSED,
            &format!("mkdir -m 700 {where_}, or name another directory in {CONFIGURATION}"),
        ),
        Some((free, true)) => Check::limited(
            NAME,
            format!("swap_directory {where_} is in memory, {free} free there"),
            in_memory,
            &format!("name a directory on a disk in {CONFIGURATION}: swap_directory = \"/srv/swap\""),
        ),
        Some((Bytes::ZERO, false)) => Check::limited(
            NAME,
            format!("swap_directory {where_}: no space is free"),
            "only VMs whose reservation is their size start",
            "make room there, or name another directory",
        ),
        Some((free, false)) => Check::ok(NAME, format!("swap_directory {where_}: {free} free")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_directory_is_found_in_the_settings() {
        let text =
            "budget = '1GiB'\n# swap_directory = '/no'\nswap_directory = \"/srv/swap\" # a disk\n[swap]\n";
        assert_eq!(directory(text), Some("/srv/swap".into()));
        assert_eq!(directory("budget = '1GiB'\n"), None);
    }

    #[test]
    fn a_directory_that_is_missing_full_or_in_memory_is_named() {
        let judge = |found| judge(Path::new("/srv/swap"), found, WITHOUT);
        assert_eq!(judge(None).verdict, Verdict::Missing);
        assert_eq!(judge(Some((Bytes::mib(1), true))).verdict, Verdict::Limited);
        assert_eq!(judge(Some((Bytes::ZERO, false))).verdict, Verdict::Limited);
        assert_eq!(
            judge(Some((Bytes::mib(1), false))),
            Check::ok(NAME, "swap_directory /srv/swap: 1MiB free")
        );
        assert!(look(Path::new("/")).is_some() && look(Path::new("/nowhere")).is_none());
    }
}
