//! Limits of control groups on memory, version 2 and version 1.

use std::path::{Path, PathBuf};

use plimsoll_units::Bytes;

/// A control group with the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    path: PathBuf,
    version: Version,
}

/// The two interfaces to control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What a control group leaves of memory to its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The group's directory.
    pub group: PathBuf,
    /// Most memory that the group may use: the smaller of `memory.max` and `memory.high`, or
    /// `memory.limit_in_bytes`.
    pub most: Bytes,
    /// What its processes can still get: what is not used, and files' pages that can be dropped.
    pub available: Bytes,
    /// Memory that its processes hold: anonymous and shared.
    pub held: Bytes,
}

/// The groups that this process is in, its own before those above it, by the files `self/mountinfo`
/// and `self/cgroup` below `proc`. Empty where these cannot be read.
#[must_use]
pub fn groups(proc: &Path) -> Vec<Group> {
    let read = |name: &str| std::fs::read_to_string(proc.join("self").join(name)).unwrap_or_default();
    let (mounts, own) = (read("mountinfo"), read("cgroup"));
    [Version::Two, Version::One].into_iter().flat_map(|version| above(&mounts, &own, version)).collect()
}

/// Directories of the group (version 2) of a process and of those above it, up to where they are
/// mounted, by what `/proc/self/mountinfo` and the `/proc/PID/cgroup` of the process say. Empty if
/// version 2 is not mounted, or if the group lies outside of the mount.
#[must_use]
pub fn unified(mounts: &str, own: &str) -> Vec<PathBuf> {
    above(mounts, own, Version::Two).into_iter().map(|group| group.path).collect()
}

/// The process' own group in one hierarchy and those above it, as far as they are mounted.
fn above(mounts: &str, own: &str, version: Version) -> Vec<Group> {
    let own = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let here = match version {
            Version::One => controllers.split(',').any(|c| c == "memory"),
            Version::Two => controllers.is_empty(),
        };
        here.then_some(Path::new(path))
    });
    let mount = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let here = match version {
            Version::One => {
                kind.starts_with("cgroup ")
                    && kind.rsplit(' ').next()?.split(',').any(|option| option == "memory")
            }
            Version::Two => kind.starts_with("cgroup2 "),
        };
        let mut fields = fields.split(' ').skip(3);
        here.then_some((Path::new(fields.next()?), Path::new(fields.next()?)))
    });
    let (Some(own), Some((root, mount))) = (own, mount) else { return Vec::new() };
    if own.components().any(|part| part.as_os_str() == "..") {
        // The group is outside of what this process sees.
        return Vec::new();
    }
    // A container may see its own group at the mount point, and be told the path from the host's
    // root.
    let below = own.strip_prefix(root).unwrap_or(Path::new(""));
    let here = if below == Path::new("") { mount.to_owned() } else { mount.join(below) };
    let within = here.ancestors().take_while(|path| path.starts_with(mount));
    within.map(|path| Group { path: path.to_owned(), version }).collect()
}

impl Group {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The limit that is set on it now; `None` if it has no limit or it cannot be read.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let read = |name: &str| std::fs::read_to_string(self.path.join(name)).ok();
        let size = |name: &str| read(name)?.trim().parse().ok().map(Bytes);
        let (limits, used, files, held): (&[&str], _, [_; 2], [_; 2]) = match self.version {
            Version::Two => (
                &["memory.max", "memory.high"],
                "memory.current",
                ["inactive_file", "active_file"],
                ["anon", "shmem"],
            ),
            Version::One => (
                &["memory.limit_in_bytes"],
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
                ["total_rss", "total_shmem"],
            ),
        };
        // No limit is the word "max", or in version 1 a size beyond any machine's.
        let most = limits.iter().filter_map(|name| size(name)).min().filter(|most| most.0 < u64::MAX >> 2)?;
        let stat = read("memory.stat").unwrap_or_default();
        let sum = |keys: [&str; 2]| keys.iter().map(|key| value(&stat, key)).sum::<Bytes>();
        let used = size(used)?.saturating_sub(sum(files));
        let group = self.path.clone();
        Some(Limit { group, most, available: most.saturating_sub(used), held: sum(held) })
    }
}

/// The value of a line such as `anon 4096`; zero without such a line.
fn value(stat: &str, key: &str) -> Bytes {
    let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok());
    Bytes(line.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reading;

    /// A machine of 16 GiB, made up in a directory, whose process is in group `own`.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(own: &str, root: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n");
            let at = machine.0.path().display().to_string();
            let mounts = format!(
                "30 23 0:1 / {at} rw - tmpfs tmpfs rw\n\
                 31 30 0:2 {root} {at}/v1/cpu rw - cgroup cgroup rw,cpu\n\
                 32 30 0:3 {root} {at}/v1/memory rw - cgroup cgroup rw,memory\n\
                 33 30 0:4 {root} {at}/v2 rw shared:1 - cgroup2 cgroup2 rw\n"
            );
            machine.write("proc/self/mountinfo", &mounts);
            machine.write("proc/self/cgroup", own);
            machine
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn limit(&self, group: &str, max: &str, high: &str) {
            self.write(&format!("{group}/memory.max"), max);
            self.write(&format!("{group}/memory.high"), high);
            self.write(&format!("{group}/memory.current"), "104857600\n");
            let stat = "anon 20971520\nfile 73400320\nshmem 10485760\ninactive_file 41943040\nactive_file 20971520\n";
            self.write(&format!("{group}/memory.stat"), stat);
        }

        fn reading(&self) -> Reading {
            Reading::take(&self.0.path().join("proc")).unwrap()
        }
    }

    #[test]
    fn the_smallest_limit_of_all_groups_above_counts() {
        let machine = Machine::new("4:memory:/\n0::/a/b\n", "/");
        machine.limit("v2/a/b", "max\n", "max\n");
        assert_eq!(machine.reading().limits, []);
        machine.limit("v2/a", "629145600\n", "524288000\n");
        machine.limit("v2", "1073741824\n", "max\n");
        let reading = machine.reading();
        let limit = reading.smallest_limit().unwrap();
        // 100 MiB are used, 60 of them for files.
        let expected = (machine.0.path().join("v2/a"), Bytes::mib(500), Bytes::mib(460), Bytes::mib(30));
        assert_eq!((limit.group.clone(), limit.most, limit.available, limit.held), expected);
        assert_eq!(reading.limits.len(), 2);
    }

    #[test]
    fn version_1_counts_too() {
        let machine = Machine::new("4:cpu:/x\n5:memory,hugetlb:/a\n", "/");
        let file = |name: &str, text: &str| machine.write(&format!("v1/memory/a/{name}"), text);
        file("memory.limit_in_bytes", "9223372036854771712\n");
        file("memory.usage_in_bytes", "104857600\n");
        assert_eq!(machine.reading().limits, [], "that is no limit");
        file("memory.limit_in_bytes", "629145600\n");
        file("memory.stat", "inactive_file 1\ntotal_inactive_file 52428800\ntotal_rss 20971520\n");
        let limit = machine.reading().limits.remove(0);
        assert_eq!(
            (limit.most, limit.available, limit.held),
            (Bytes::mib(600), Bytes::mib(550), Bytes::mib(20))
        );
    }

    #[test]
    fn a_container_finds_its_group_at_the_mount_point() {
        let machine = Machine::new("0::/docker/c1\n", "/docker/c1");
        machine.limit("v2", "629145600\n", "max\n");
        assert_eq!(machine.reading().smallest_limit().unwrap().most, Bytes::mib(600));
        let outside = Machine::new("0::/../c2\n", "/");
        outside.limit("v2", "629145600\n", "max\n");
        assert_eq!(outside.reading().limits, []);
    }

    #[test]
    fn a_missing_or_odd_file_is_no_limit() {
        let machine = Machine::new("0::/a\n", "/");
        assert_eq!(machine.reading().limits, [], "no files at all");
        for (max, current) in [("", "1"), ("many", "1"), ("-1", "1"), ("4096", ""), ("4096", "x")] {
            machine.write("v2/a/memory.max", max);
            machine.write("v2/a/memory.current", current);
            assert_eq!(machine.reading().limits, [], "{max} {current}");
        }
        machine.limit("v2/a", "17179869184\n", "max\n");
        assert_eq!(machine.reading().limits, [], "the machine has no more");
        let blind = Machine::new("", "/");
        std::fs::remove_dir_all(blind.0.path().join("proc/self")).unwrap();
        assert_eq!(blind.reading().limits, []);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(mounts in "([0-9] / \\.| - |cgroup2? |memory|rw,|/a|\n){0,40}", own in "([0-9]|:|memory|/|\\.\\.|a|\n){0,40}") {
            above(&mounts, &own, Version::One);
            above(&mounts, &own, Version::Two);
        }
    }
}
