//! How much memory a program started now can have: what the machine and its control groups leave.

use std::fs;
use std::path::Path;

use crate::Size;

/// The root of the control groups' file system (version 2).
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that a program started now can have. `None` where the kernel does not say.
pub fn available() -> Option<Size> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // Each group above ours limits us as well.
    let groups = Path::new(GROUPS).join(path);
    let groups = groups.ancestors().take_while(|group| group.starts_with(GROUPS));
    let left = groups.filter_map(|group| {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        left(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
    });
    Some(left.fold(machine, Size::min))
}

/// The KiB after `key` in /proc/meminfo.
fn field(meminfo: &str, key: &str) -> Option<Size> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size(kib << 10))
}

/// What a control group leaves; `None` where it has no limit.
fn left(max: &str, current: &str, stat: &str) -> Option<Size> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    // The kernel drops files that were not used lately before it refuses memory.
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(Size(max.saturating_sub(current.saturating_sub(files.unwrap_or(0)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kib() {
        assert_eq!(field("MemTotal: 8 kB\nMemAvailable:    4096 kB\n", "MemAvailable:"), Some(Size::mib(4)));
        assert_eq!(field("MemTotal: 8 kB\n", "MemAvailable:"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_it_cannot_drop() {
        assert_eq!(left("max\n", "5\n", ""), None);
        assert_eq!(left("1000\n", "700\n", "anon 400\ninactive_file 300\n"), Some(Size(600)));
        assert_eq!(left("1000\n", "1200\n", ""), Some(Size(0)));
    }
}
