use std::process::Command;

use plimsoll_protocol::definition::Disk;
use plimsoll_units::Bytes;

use super::*;
use crate::forks::apart;

/// A directory in place of the kernel's groups. Files appear there when they are written.
struct Groups(tempfile::TempDir);

impl Groups {
    /// Adopts the group in which process 88 is.
    fn adopt(&self, vm: &str, pid: u32) -> Option<MemoryBound> {
        self.adopt_with(&definition(vm), pid, None)
    }

    /// The same; the earlier daemon has noted `beside`.
    fn adopt_with(&self, definition: &VmDefinition, pid: u32, beside: Option<Bytes>) -> Option<MemoryBound> {
        let mounts = format!("33 30 0:4 / {} rw - cgroup2 cgroup2 rw\n", self.0.path().display());
        let own = format!("0::/vm-{}.88\n", definition.name);
        adopt_by(&mounts, &own, definition, pid, beside)
    }

    fn new(controllers: &str) -> Self {
        let groups = Self(tempfile::tempdir().unwrap());
        groups.write("cgroup.controllers", controllers);
        groups
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap_or_default().trim().to_owned()
    }

    fn most(&self, vm: &str) -> Bytes {
        // In a group of the kernel's, a write replaces the whole value.
        Bytes(self.read(&format!("vm-{vm}.88/memory.max")).parse().unwrap())
    }

    fn used(&self, vm: &str, used: Bytes) {
        self.write(&format!("vm-{vm}.88/memory.current"), &format!("{}\n", used.0));
    }

    fn open(&self) -> Cgroups {
        Cgroups::below(self.0.path().to_owned(), 77, Daemon::InBase).unwrap()
    }
}

fn definition(name: &str) -> VmDefinition {
    let text = format!("name = '{name}'\nsize = '256MiB'\nvcpus = 2\n[boot]\nmodel = true\n");
    VmDefinition::from_toml(&text, Path::new("/")).unwrap()
}

fn mib(n: u64) -> Pages {
    Pages::floor(Bytes::mib(n))
}

#[test]
fn the_group_is_found_in_pure_and_hybrid_hierarchies() {
    let mounts = "24 1 0:2 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n25 24 0:3 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
    let own = "4:memory:/x\n0::/system.slice/plimsolld.service\n";
    let service = Path::new("/sys/fs/cgroup/unified/system.slice/plimsolld.service");
    assert_eq!(base(mounts, own).unwrap(), service);
    let leaf = "0::/system.slice/plimsolld.service/daemon\n";
    assert_eq!(base(mounts, leaf).unwrap(), service, "a daemon in its leaf, by systemd or by itself");
    let ours = Path::new("/sys/fs/cgroup/unified/plimsoll");
    assert_eq!(base(mounts, "0::/\n").unwrap(), ours);
    assert_eq!(base(mounts, "0::/plimsoll/daemon\n").unwrap(), ours);
    assert_eq!(base(mounts, "0::/daemon\n").unwrap(), ours);
    assert_eq!(base("", own), None);
    assert_eq!(base(mounts, "0::/../..\n"), None);
}

#[test]
fn the_daemon_moves_to_its_leaf_and_vms_get_all_limits_before_their_process() {
    let groups = Groups::new("cpuset cpu io memory pids\n");
    let cgroups = groups.open();
    assert_eq!(cgroups.unlimited(), None);
    assert_eq!(groups.read("daemon/cgroup.procs"), "77");
    assert_eq!(groups.read("cgroup.subtree_control"), "+memory +pids +cpu");
    let bound = cgroups.put(&definition("a"), 88, mib(64)).unwrap();
    assert!(bound.is_some());
    let file = |name: &str| groups.read(&format!("vm-a.88/{name}"));
    assert_eq!(file("cgroup.procs"), "88");
    assert_eq!([file("memory.swap.max"), file("memory.oom.group")], ["0", "1"]);
    assert_eq!([file("pids.max"), file("cpu.weight")], ["256", "200"]);
    let most = groups.most("a");
    assert!(most > Bytes::mib(64 + 8 + 32) && most < Bytes::mib(64 + 8 + 64), "{most}");
}

#[test]
fn a_daemon_that_is_elsewhere_stays_there() {
    let groups = Groups::new("cpu memory pids\n");
    let mounts = format!("33 30 0:4 / {} rw - cgroup2 cgroup2 rw\n", groups.0.path().display());
    let base = groups.0.path().join("machine.slice/vms");
    let error = elsewhere(&mounts, Path::new("/machine.slice/vms")).unwrap_err();
    assert!(error.contains(&format!("no control group {}", base.display())), "{error}");
    std::fs::create_dir_all(&base).unwrap();
    std::fs::write(base.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    assert_eq!(elsewhere(&mounts, Path::new("/machine.slice/vms")).unwrap(), base);
    assert_eq!(elsewhere("", Path::new("/vms")).unwrap_err(), NOT_MOUNTED);
    let cgroups = Cgroups::below(base, 77, Daemon::Elsewhere).unwrap();
    assert_eq!(cgroups.unlimited(), None);
    assert!(!groups.0.path().join("machine.slice/vms/daemon").exists());
    assert_eq!(groups.read("machine.slice/vms/cgroup.subtree_control"), "+memory +pids +cpu");
    cgroups.put(&definition("a"), 88, mib(64)).unwrap().unwrap();
    assert_eq!(groups.read("machine.slice/vms/vm-a.88/cgroup.procs"), "88");
}

#[test]
fn without_controllers_vms_have_groups_and_it_is_said_what_is_missing() {
    let groups = Groups::new("cpu io\n");
    let cgroups = groups.open();
    let why = cgroups.unlimited().unwrap();
    assert!(why.contains("lacks the controllers memory, pids") && why.contains("Delegate=yes"), "{why}");
    assert_eq!(groups.read("daemon/cgroup.procs"), "", "it stays where it is");
    assert!(cgroups.put(&definition("a"), 88, mib(64)).unwrap().is_none());
    assert_eq!(groups.read("vm-a.88/cgroup.procs"), "88");
    assert_eq!(groups.read("vm-a.88/memory.max"), "");
    assert!(groups.adopt("a", 88).is_none());
}

#[test]
fn the_bound_rises_before_a_grant_and_falls_when_memory_is_back() {
    let groups = Groups::new("cpu memory pids\n");
    let bound = groups.open().put(&definition("a"), 88, mib(64)).unwrap().unwrap();
    let begin = groups.most("a");
    bound.set(mib(128));
    assert_eq!(groups.most("a"), begin + Bytes::mib(64));
    groups.used("a", Bytes::mib(128));
    bound.set(mib(100));
    assert_eq!(groups.most("a"), begin + Bytes::mib(64), "pages that are on their way back are not missed");
    bound.lower();
    assert_eq!(groups.most("a"), begin + Bytes::mib(36));
    // What the group uses for files is asked back before its bound falls.
    groups.used("a", begin + Bytes::mib(30));
    bound.set(mib(64));
    bound.lower();
    assert_eq!(groups.most("a"), begin + Bytes::mib(36));
    assert_eq!(groups.read("vm-a.88/memory.reclaim"), Bytes::mib(38).0.to_string());
    groups.used("a", Bytes::mib(70));
    (0..3).for_each(|_| bound.lower());
    assert_eq!(groups.most("a"), begin);
}

#[test]
fn a_disk_in_memory_is_within_the_bound() {
    let groups = Groups::new("cpu memory pids\n");
    let disk = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    disk.as_file().set_len(Bytes::mib(300).0).unwrap();
    let mut with_disk = definition("a");
    with_disk.disks.push(Disk::new(disk.path()));
    groups.open().put(&definition("a"), 88, mib(64)).unwrap().unwrap();
    let without = groups.most("a");
    groups.open().put(&with_disk, 88, mib(64)).unwrap().unwrap();
    assert_eq!(groups.most("a"), without + Bytes::mib(300));
    with_disk.disks[0].read_only = true;
    groups.open().put(&with_disk, 88, mib(64)).unwrap().unwrap();
    assert_eq!(groups.most("a"), without);
}

#[test]
fn a_bound_is_taken_over_without_a_look_at_disks() {
    let groups = Groups::new("cpu memory pids\n");
    let disk = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    disk.as_file().set_len(Bytes::mib(300).0).unwrap();
    let mut with_disk = definition("a");
    with_disk.disks.push(Disk::new(disk.path()));
    let before = groups.open().put(&with_disk, 88, mib(64)).unwrap().unwrap().beside();
    disk.as_file().set_len(0).unwrap();
    let noted = groups.adopt_with(&with_disk, 88, Some(before)).unwrap();
    assert_eq!(noted.beside(), before);
    // An earlier version noted nothing.
    let looked = groups.adopt_with(&with_disk, 88, None).unwrap();
    assert_eq!(looked.beside(), before - Bytes::mib(300));
}

#[test]
fn a_bound_that_cannot_be_managed_is_lifted() {
    let groups = Groups::new("cpu memory pids\n");
    groups.open().put(&definition("a"), 88, mib(64)).unwrap().unwrap();
    groups.write("vm-a.88/memory.max", "\u{0}\u{1}");
    // What is no number is no bound, and is raised no further.
    assert!(groups.adopt("a", 88).is_some());
    std::fs::write(groups.0.path().join("vm-a.88/memory.max"), [0xff, 0xfe]).unwrap();
    assert!(groups.adopt("a", 88).is_none());
    assert_eq!(groups.read("vm-a.88/memory.max"), "max");
}

#[test]
fn a_group_outlives_the_daemon() {
    let groups = Groups::new("cpu memory pids\n");
    groups.open().put(&definition("a"), 88, mib(64)).unwrap().unwrap();
    let begin = groups.most("a");
    let cgroups = groups.open();
    cgroups.sweep();
    assert!(groups.adopt("a", 89).is_none(), "another process is there");
    let bound = groups.adopt("a", 88).unwrap();
    groups.used("a", Bytes::mib(1));
    bound.set(mib(64));
    assert_eq!(groups.most("a"), begin);
    bound.set(mib(65));
    assert_eq!(groups.most("a"), begin + Bytes::mib(1));
}

#[test]
fn a_group_that_is_busy_is_removed_later_and_others_of_its_name_are_not() {
    let groups = Groups::new("cpu memory pids\n");
    let cgroups = groups.open();
    let name = definition("a").name;
    for pid in [88, 89] {
        cgroups.put(&definition("a"), pid, mib(64)).unwrap();
    }
    let [gone, other] = [88, 89].map(|pid| cgroups.of(&name, pid));
    // In a group of the kernel's, files go with it: here they stand for a process.
    cgroups.remove(&name, 88);
    assert!(gone.exists());
    for path in [&gone, &other] {
        std::fs::remove_dir_all(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }
    cgroups.tidy();
    assert!(!gone.exists() && other.exists());
}

/// On the kernel's own groups, where this machine lets us.
#[test]
fn the_kernel_takes_what_is_written() {
    let _apart = apart();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let base = base(&mounts, "0::/\n")
        .map(|base| base.with_file_name(format!("plimsoll-test-{}", std::process::id())));
    let mut daemon = Command::new("sleep").arg("600").spawn().unwrap();
    let cgroups = base
        .clone()
        .ok_or("no cgroup v2".to_owned())
        .and_then(|base| Cgroups::below(base, daemon.id(), Daemon::InBase));
    let limited = cgroups.as_ref().map_err(String::clone).and_then(|c| c.limits.clone().map(|()| c));
    match limited {
        Err(why) => {
            eprintln!("SKIPPED: limits of control groups are not tried on this machine's kernel: {why}")
        }
        Ok(cgroups) => {
            let mut vmm = Command::new("sleep").arg("600").spawn().unwrap();
            let bound = cgroups.put(&definition("a"), vmm.id(), mib(64)).unwrap().unwrap();
            let file = |name: &str| {
                std::fs::read_to_string(cgroups.of(&definition("a").name, vmm.id()).join(name)).unwrap()
            };
            let begin: u64 = file("memory.max").trim().parse().unwrap();
            bound.set(mib(128));
            assert_eq!(file("memory.max").trim(), (begin + Bytes::mib(64).0).to_string());
            bound.set(mib(64));
            bound.lower();
            assert_eq!(file("memory.max").trim(), begin.to_string());
            assert_eq!(file("cgroup.procs").trim(), vmm.id().to_string());
            assert!(!cgroups.oom_killed(&definition("a").name, vmm.id()));
            kill(&cgroups.of(&definition("a").name, vmm.id()));
            vmm.wait().unwrap();
            cgroups.remove(&definition("a").name, vmm.id());
            assert!(!cgroups.of(&definition("a").name, vmm.id()).exists());
        }
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    if let Some(base) = base {
        std::fs::remove_dir(base.join(LEAF)).ok();
        std::fs::remove_dir(&base).ok();
    }
}
