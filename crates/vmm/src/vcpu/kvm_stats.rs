//! What KVM counts of one vCPU (`KVM_GET_STATS_FD`, in the kernel's `virt/kvm/api.rst`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use kvm_ioctls::VcpuFd;

/// Gives a descriptor of a vCPU's counters.
pub(crate) const KVM_GET_STATS_FD: u32 = 0xaece;

/// Bounds on what the kernel says of its own counters: it has some sixty, with names below 48
/// bytes.
const MAX_COUNTERS: u32 = 1024;
const MAX_NAME: u32 = 256;
/// The counter's description without its name: flags, exponent, size, offset, bucket size.
const DESCRIPTION: usize = 16;

/// How long one vCPU has been halted by its own will.
#[derive(Debug)]
pub(crate) struct HaltStats {
    file: File,
    /// Where the time of all halts that have ended stands, in nanoseconds.
    waited: u64,
    /// Where it stands whether the vCPU is halted, 0 or 1.
    blocking: u64,
}

impl HaltStats {
    /// Those of `vcpu`, which last as long as this.
    ///
    /// # Errors
    /// The kernel is older than 5.14, has no descriptor left, or does not count halts.
    pub(crate) fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the request has no argument, and no effect but a new descriptor.
        let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD.into()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for us alone.
        let file = unsafe { File::from_raw_fd(fd) };
        let mut header = [0; 24];
        file.read_exact_at(&mut header, 0)?;
        let [name, counters, descriptions, data] = [4, 8, 16, 20].map(|at| word(&header, at));
        if name > MAX_NAME || counters > MAX_COUNTERS {
            return Err(io::Error::other("KVM describes its counters in a way that is not known"));
        }
        let each = DESCRIPTION + name as usize;
        let mut text = vec![0; each * counters as usize];
        file.read_exact_at(&mut text, descriptions.into())?;
        let find = |wanted: &str| {
            let named =
                |one: &&[u8]| one[DESCRIPTION..].split(|&byte| byte == 0).next() == Some(wanted.as_bytes());
            let found = text.chunks_exact(each).find(named);
            let missing = || io::Error::other(format!("KVM does not count {wanted}"));
            found.map(|one| u64::from(data) + u64::from(word(one, 8))).ok_or_else(missing)
        };
        Ok(Self { waited: find("halt_wait_ns")?, blocking: find("blocking")?, file })
    }

    /// Counters in a file of ours: the time of halts, and whether the vCPU is halted.
    #[cfg(test)]
    pub(super) fn in_file(file: File) -> Self {
        Self { file, waited: 0, blocking: 8 }
    }

    /// For how long the vCPU has been halted in all halts that have ended.
    pub(crate) fn waited(&self) -> io::Result<Duration> {
        self.counter(self.waited).map(Duration::from_nanos)
    }

    /// Whether it is halted.
    pub(crate) fn is_halted(&self) -> io::Result<bool> {
        Ok(self.counter(self.blocking)? > 0)
    }

    fn counter(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// The 32-bit number at `at`, which lies within `bytes`.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_counts_how_long_a_vcpu_is_halted() {
        // A host without KVM has no vCPU to try it on.
        let Ok(kvm) = kvm_ioctls::Kvm::new() else { return };
        let vm = kvm.create_vm().unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let stats = HaltStats::of(&vcpu).unwrap();
        assert_eq!((stats.waited().unwrap(), stats.is_halted().unwrap()), (Duration::ZERO, false));
        assert_ne!(stats.waited, stats.blocking);
    }
}
