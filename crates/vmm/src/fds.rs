use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};
use plimsoll_protocol::control::FdRole;
use plimsoll_units::Bytes;

/// The descriptors that the daemon passed, by role.
#[derive(Debug, Default)]
pub(crate) struct PassedFds {
    pub(crate) kvm: Option<OwnedFd>,
    pub(crate) userfaultfd: Option<OwnedFd>,
    pub(crate) kernel: Option<OwnedFd>,
    pub(crate) initrd: Option<OwnedFd>,
    pub(crate) swap: Option<OwnedFd>,
    pub(crate) console_log: Option<OwnedFd>,
    pub(crate) console_listener: Option<OwnedFd>,
    pub(crate) vsock_listener: Option<OwnedFd>,
    /// Each disk, then its backing files.
    pub(crate) disks: Vec<Vec<OwnedFd>>,
    pub(crate) taps: Vec<OwnedFd>,
}

impl PassedFds {
    /// Gives each descriptor its role.
    ///
    /// # Errors
    /// More roles than descriptors or the reverse, a role twice, a disk or tap out of order.
    pub(crate) fn sort(roles: &[FdRole], fds: Vec<OwnedFd>) -> Result<Self> {
        ensure!(
            roles.len() == fds.len(),
            "the daemon named {} file descriptors and passed {}",
            roles.len(),
            fds.len()
        );
        let mut sorted = Self::default();
        for (role, fd) in roles.iter().zip(fds) {
            let slot = match role {
                FdRole::Kvm => &mut sorted.kvm,
                FdRole::Userfaultfd => &mut sorted.userfaultfd,
                FdRole::Kernel => &mut sorted.kernel,
                FdRole::Initrd => &mut sorted.initrd,
                FdRole::Swap => &mut sorted.swap,
                FdRole::ConsoleLog => &mut sorted.console_log,
                FdRole::ConsoleListener => &mut sorted.console_listener,
                FdRole::VsockListener => &mut sorted.vsock_listener,
                FdRole::Disk(index) if usize::from(*index) == sorted.disks.len() => {
                    sorted.disks.push(vec![fd]);
                    continue;
                }
                FdRole::Backing(index) if usize::from(*index) + 1 == sorted.disks.len() => {
                    if let Some(disk) = sorted.disks.last_mut() {
                        disk.push(fd);
                    }
                    continue;
                }
                FdRole::Tap(index) if usize::from(*index) == sorted.taps.len() => {
                    sorted.taps.push(fd);
                    continue;
                }
                FdRole::Disk(_) | FdRole::Backing(_) | FdRole::Tap(_) => {
                    bail!("the daemon passed {role:?} out of order")
                }
            };
            ensure!(slot.replace(fd).is_none(), "the daemon passed {role:?} twice");
        }
        Ok(sorted)
    }

    /// The length of the longest file among those that are written: swap, console log, disks. Block
    /// devices count as empty: they cannot grow.
    ///
    /// # Errors
    /// A file's length cannot be read.
    pub(crate) fn longest_written(&self) -> Result<Bytes> {
        let disks = self.disks.iter().filter_map(|files| files.first());
        let written = self.swap.iter().chain(&self.console_log).chain(disks);
        written
            .map(|fd| length(fd).context("cannot read a file's length"))
            .try_fold(Bytes::ZERO, |longest, length| Ok(longest.max(length?)))
    }
}

fn length(fd: &OwnedFd) -> Result<Bytes> {
    Ok(Bytes(u64::try_from(rustix::fs::fstat(fd)?.st_size)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fds(n: usize) -> Vec<OwnedFd> {
        (0..n).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn every_descriptor_has_one_role() {
        let roles = [FdRole::Kvm, FdRole::Disk(0), FdRole::Disk(1), FdRole::Backing(1), FdRole::Tap(0)];
        let sorted = PassedFds::sort(&roles, fds(5)).unwrap();
        assert!(sorted.kvm.is_some() && sorted.taps.len() == 1);
        assert_eq!(sorted.disks.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
        for (roles, n) in [
            (&[FdRole::Kvm, FdRole::Kvm][..], 2),
            (&[FdRole::Disk(1)], 1),
            (&[FdRole::Kvm], 0),
            (&[], 1),
            (&[FdRole::Backing(0)], 1),
            (&[FdRole::Disk(0), FdRole::Backing(1)], 2),
        ] {
            assert!(PassedFds::sort(roles, fds(n)).is_err(), "{roles:?}");
        }
    }

    #[test]
    fn the_longest_file_counts_and_devices_do_not() {
        let file = |length| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(length).unwrap();
            OwnedFd::from(file)
        };
        let disks = vec![
            vec![file(5 << 20), file(7 << 20)],
            vec![std::fs::File::open("/dev/null").unwrap().into()],
            vec![file(3)],
        ];
        let fds =
            PassedFds { swap: Some(file(4 << 20)), disks, kernel: Some(file(9 << 20)), ..Default::default() };
        assert_eq!(fds.longest_written().unwrap(), Bytes::mib(5));
        assert_eq!(PassedFds::default().longest_written().unwrap(), Bytes::ZERO);
    }
}
