//! The list of system calls that a running VMM may use.
//!
//! One filter for all threads, inherited by those that are started later. What is not listed kills
//! the process, except what libc can do without ([`UNKNOWN`]).

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Missing;

/// System calls that the kernel seems not to have: they answer `ENOSYS`. The flags of `clone3` lie
/// behind a pointer that a filter cannot follow; libc then uses `clone`, which may only start
/// threads. `openat` is called by malloc when a thread has freed much memory, to learn whether the
/// host overcommits; it then takes the careful way.
const UNKNOWN: &[i64] = &[libc::SYS_clone3, libc::SYS_openat];

/// What happens to a forbidden system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The process dies by `SIGSYS`.
    Kill,
    /// The kernel logs it and lets it pass.
    Log,
}

/// System calls allowed with any argument, grouped by their users.
const ALLOWED: &[i64] = &[
    // Memory, of the allocator and of the pmap. mmap and mprotect have rules below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads and their signals.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Waiting and time.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_timerfd_settime,
    // Descriptors that the daemon passed, and events.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_eventfd2,
    libc::SYS_getrandom,
    libc::SYS_io_uring_enter,
    // The control link's and the console's sockets: they exist, and none can be made or connected.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_getsockopt,
    // One direction of a connection between guest and host ends before the other.
    libc::SYS_shutdown,
];

/// Commands of fcntl: flags of what we have, and a descriptor's duplicate.
const FCNTL: &[libc::c_int] =
    &[libc::F_GETFL, libc::F_SETFL, libc::F_GETFD, libc::F_SETFD, libc::F_DUPFD_CLOEXEC];

/// The request on which performance depends.
const KVM_RUN: u32 = none(KVM, 0x80);

/// Requests of ioctl beside [`KVM_RUN`] and those on the userfaultfd, which the pmap lists itself.
const IOCTL: &[u32] = &[
    none(KVM, 0x01),        // KVM_CREATE_VM
    none(KVM, 0x03),        // KVM_CHECK_EXTENSION
    none(KVM, 0x04),        // KVM_GET_VCPU_MMAP_SIZE
    both(KVM, 0x05, 8),     // KVM_GET_SUPPORTED_CPUID
    none(KVM, 0x41),        // KVM_CREATE_VCPU
    write(KVM, 0x46, 32),   // KVM_SET_USER_MEMORY_REGION
    none(KVM, 0x47),        // KVM_SET_TSS_ADDR
    write(KVM, 0x48, 8),    // KVM_SET_IDENTITY_MAP_ADDR
    none(KVM, 0x60),        // KVM_CREATE_IRQCHIP
    write(KVM, 0x6a, 8),    // KVM_SET_GSI_ROUTING
    write(KVM, 0x76, 32),   // KVM_IRQFD
    write(KVM, 0x77, 64),   // KVM_CREATE_PIT2
    write(KVM, 0x79, 64),   // KVM_IOEVENTFD
    read(KVM, 0x81, 144),   // KVM_GET_REGS
    write(KVM, 0x82, 144),  // KVM_SET_REGS
    read(KVM, 0x83, 312),   // KVM_GET_SREGS
    write(KVM, 0x84, 312),  // KVM_SET_SREGS
    write(KVM, 0x89, 8),    // KVM_SET_MSRS
    write(KVM, 0x8d, 416),  // KVM_SET_FPU
    read(KVM, 0x8e, 1024),  // KVM_GET_LAPIC
    write(KVM, 0x8f, 1024), // KVM_SET_LAPIC
    write(KVM, 0x90, 8),    // KVM_SET_CPUID2
    write(KVM, 0xa3, 104),  // KVM_ENABLE_CAP
    none(KVM, 0xad),        // KVM_KVMCLOCK_CTRL
    crate::vcpu::KVM_GET_STATS_FD,
    write(b'T' as u32, 208, 4), // TUNSETOFFLOAD
    none(b'T' as u32, 0x21),    // FIONBIO
];

const KVM: u32 = 0xae;

/// All requests of ioctl that are allowed, the most frequent first: a filter runs rule by rule.
fn ioctls() -> impl Iterator<Item = u32> {
    [KVM_RUN].into_iter().chain(plimsoll_pmap::uffd::IOCTLS).chain(IOCTL.iter().copied())
}

/// ioctl numbers as linux/ioctl.h makes them: direction, size of the argument, driver, number.
const fn none(driver: u32, number: u32) -> u32 {
    // FIONBIO and its like predate the scheme, and have no direction either.
    (driver << 8) | number
}
const fn write(driver: u32, number: u32, size: u32) -> u32 {
    (1 << 30) | (size << 16) | none(driver, number)
}
const fn read(driver: u32, number: u32, size: u32) -> u32 {
    (2 << 30) | (size << 16) | none(driver, number)
}
const fn both(driver: u32, number: u32, size: u32) -> u32 {
    (3 << 30) | (size << 16) | none(driver, number)
}

/// Installs the filter for all threads and all that they start.
pub(super) fn apply(mode: Mode) -> Result<(), Missing> {
    // Of two filters that disagree the stricter answer counts: ENOSYS before a pass, death before
    // ENOSYS.
    seccompiler::apply_filter_all_threads(&unknown_fail()?)?;
    seccompiler::apply_filter_all_threads(&allowed_only(mode)?)?;
    Ok(())
}

/// System calls of the boot reader's process, with any argument. Its descriptors are the files of
/// one disk, open for reading, and a socket; it opens nothing.
const READERS: &[i64] = &[
    libc::SYS_pread64,
    libc::SYS_lseek,
    // Memory. mmap and mprotect have rules below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    // Hash maps have random seeds.
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Installs the filter of the boot reader's process: it reads from and writes to `socket` alone.
pub(super) fn apply_to_reader(socket: RawFd) -> Result<(), Missing> {
    seccompiler::apply_filter(&unknown_fail()?)?;
    seccompiler::apply_filter(&readers_only(socket)?)?;
    Ok(())
}

fn readers_only(socket: RawFd) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        READERS.iter().chain(UNKNOWN).map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_read, libc::SYS_write] {
        rules.insert(call, vec![equals(0, bits(socket))?]);
    }
    // Memory is never executable, and never the disk's.
    let anonymous = bits(libc::MAP_ANONYMOUS);
    let both = vec![
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits(libc::PROT_EXEC)), 0)?,
        SeccompCondition::new(3, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(anonymous), anonymous)?,
    ];
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(both)?]);
    rules.insert(libc::SYS_mprotect, vec![mask(2, bits(libc::PROT_EXEC), 0)?]);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

fn unknown_fail() -> Result<BpfProgram, seccompiler::BackendError> {
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let rules = UNKNOWN.iter().map(|call| (*call, Vec::new())).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, TargetArch::x86_64)?.try_into()
}

fn allowed_only(mode: Mode) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(UNKNOWN).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_ioctl, any_of(1, ioctls().map(u64::from))?);
    // What the kernel keeps for the other end of a connection. It takes no more than is usual.
    let send_buffer = vec![condition(1, bits(libc::SOL_SOCKET))?, condition(2, bits(libc::SO_SNDBUF))?];
    rules.insert(libc::SYS_setsockopt, vec![SeccompRule::new(send_buffer)?]);
    rules.insert(libc::SYS_fcntl, any_of(1, FCNTL.iter().map(|command| bits(*command)))?);
    // No memory becomes executable.
    rules.insert(libc::SYS_mmap, vec![mask(2, bits(libc::PROT_EXEC), 0)?]);
    rules.insert(libc::SYS_mprotect, vec![mask(2, bits(libc::PROT_EXEC), 0)?]);
    // Threads, no processes.
    let thread = bits(libc::CLONE_THREAD | libc::CLONE_VM);
    rules.insert(libc::SYS_clone, vec![mask(0, thread, thread)?]);
    // Signals to threads of this process only: their group is ours.
    rules.insert(libc::SYS_tgkill, vec![equals(0, u64::from(std::process::id()))?]);
    rules.insert(libc::SYS_prctl, vec![equals(0, bits(libc::PR_SET_NAME))?]);
    // The boot reader is killed where it breaks a rule. Only its process has a descriptor here.
    rules.insert(libc::SYS_pidfd_send_signal, vec![equals(1, bits(libc::SIGKILL))?]);
    // A file's facts by descriptor, never by path: that needs AT_EMPTY_PATH.
    let empty_path = bits(libc::AT_EMPTY_PATH);
    rules.insert(libc::SYS_fstat, Vec::new());
    rules.insert(libc::SYS_newfstatat, vec![mask(3, empty_path, empty_path)?]);
    rules.insert(libc::SYS_statx, vec![mask(2, empty_path, empty_path)?]);
    let forbidden = match mode {
        Mode::Kill => SeccompAction::KillProcess,
        Mode::Log => SeccompAction::Log,
    };
    SeccompFilter::new(rules, forbidden, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// A C constant as the argument of a system call.
#[expect(clippy::cast_sign_loss, reason = "the bits are what counts")]
const fn bits(constant: libc::c_int) -> u64 {
    constant as u32 as u64
}

/// One rule per value that argument `index` may have.
fn any_of(
    index: u8,
    values: impl Iterator<Item = u64>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.map(|value| equals(index, value)).collect()
}

fn equals(index: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(index, SeccompCmpOp::Eq, value)
}

/// Argument `index` has this value.
fn condition(index: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The bits of `mask` in argument `index` are those of `value`.
fn mask(index: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    rule(index, SeccompCmpOp::MaskedEq(mask), value)
}

/// All that is compared here are C ints, of which the kernel looks at the lower half.
fn rule(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_headers() {
        let known: &[(u32, u32)] = &[
            (0xae80, KVM_RUN),
            (0x4020_ae46, write(KVM, 0x46, 32)),
            (0x8138_ae83, read(KVM, 0x83, 312)),
            (0x4008_ae6a, write(KVM, 0x6a, 8)),
            (0x4008_ae90, write(KVM, 0x90, 8)),
            (0x4068_aea3, write(KVM, 0xa3, 104)),
            (0x4004_54d0, write(b'T' as u32, 208, 4)),
            (0x5421, none(b'T' as u32, 0x21)),
        ];
        for (header, ours) in known {
            assert_eq!(header, ours, "{header:#x}");
            assert!(ioctls().any(|request| request == *ours));
        }
        assert_eq!(std::mem::size_of::<kvm_bindings::kvm_sregs>(), 312);
        assert_eq!(std::mem::size_of::<kvm_bindings::kvm_fpu>(), 416);
        assert_eq!(std::mem::size_of::<kvm_bindings::kvm_enable_cap>(), 104);
    }

    #[test]
    fn what_guest_memory_needs_is_allowed() {
        for call in plimsoll_pmap::SYSCALLS {
            let with_a_rule = [libc::SYS_ioctl, libc::SYS_mmap].contains(&call);
            assert!(with_a_rule || ALLOWED.contains(&call), "{call}");
        }
        // Neither pages moved by the kernel nor the pagemap's ioctl: the pmap has use for neither.
        for request in [0xc028_aa05, 0xc060_6610] {
            assert!(!ioctls().any(|allowed| allowed == request), "{request:#x}");
        }
    }

    #[test]
    fn the_filter_fits_what_the_kernel_takes() {
        let length = allowed_only(Mode::Kill).unwrap().len() + unknown_fail().unwrap().len();
        assert!(length < 1000, "{length} instructions run before every system call; the kernel takes 4096");
    }
}
