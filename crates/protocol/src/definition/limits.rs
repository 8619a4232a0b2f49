use plimsoll_units::Bytes;

/// Most vCPUs of a VM: what the boot tables and the tests cover.
pub const MAX_VCPUS: u8 = 8;
/// Smallest VM: below it no Debian kernel boots, and the 32-bit boot areas would not fit.
pub const MIN_SIZE: Bytes = Bytes::mib(32);
/// Largest VM: 1 TiB keeps every page count within 32 bits, which the balloon's interface uses.
pub const MAX_SIZE: Bytes = Bytes::mib(1 << 20);
/// Longest kernel command line: what the x86 boot protocol's `cmdline_size` of Debian's kernels
/// allows.
pub(super) const MAX_CMDLINE: usize = 2047;
