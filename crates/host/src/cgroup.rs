//! A control group (version 2) for each VM.
//!
//! The group holds the VM's process and no controller is switched on for it yet: that needs the daemon to leave its own
//! group, which is the service manager's to arrange. It makes the process countable and killable as a whole.

use std::io;
use std::path::{Path, PathBuf};

use plimsoll_protocol::VmName;

/// The group under which VMs get theirs.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups(PathBuf);

impl Cgroups {
    /// Finds the daemon's own group, or why there is none that it may use.
    ///
    /// # Errors
    /// In one line: no cgroup v2, or no right to make groups.
    pub(crate) fn find() -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let base = base(&mounts, &own).ok_or("cgroup v2 is not mounted")?;
        let probe = base.join("plimsoll-probe");
        make(&base)
            .and_then(|()| make(&probe))
            .and_then(|()| std::fs::remove_dir(&probe))
            .map_err(|e| format!("no control groups can be made in {}: {e}", base.display()))?;
        Ok(Self(base))
    }

    /// Makes the group of a VM and puts a process there.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(crate) fn put(&self, vm: &VmName, pid: u32) -> io::Result<()> {
        let path = self.of(vm);
        let context = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        make(&path).map_err(context)?;
        std::fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(context)
    }

    /// Removes the group of a VM whose process is gone.
    pub(crate) fn remove(&self, vm: &VmName) {
        let path = self.of(vm);
        if let Err(e) = std::fs::remove_dir(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove the control group {}: {e}", path.display());
        }
    }

    fn of(&self, vm: &VmName) -> PathBuf {
        self.0.join(format!("vm-{vm}"))
    }
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Where VMs' groups go: below the daemon's own. In the root group, which is everybody's, a group of ours comes between.
fn base(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| fields.split(' ').nth(4))?
    })?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if own.split('/').any(|part| part == "..") {
        return None;
    }
    let base = Path::new(mount).join(own);
    Some(if own.is_empty() { base.join("plimsoll") } else { base })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_pure_and_hybrid_hierarchies() {
        let mounts = "24 1 0:2 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n25 24 0:3 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/x\n0::/system.slice/plimsolld.service\n";
        assert_eq!(
            base(mounts, own).unwrap(),
            Path::new("/sys/fs/cgroup/unified/system.slice/plimsolld.service")
        );
        assert_eq!(base(mounts, "0::/\n").unwrap(), Path::new("/sys/fs/cgroup/unified/plimsoll"));
        assert_eq!(base("", own), None);
        assert_eq!(base(mounts, "0::/../..\n"), None);
    }
}
