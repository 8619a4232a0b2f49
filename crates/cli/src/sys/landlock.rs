//! Landlock: which version of it the kernel offers.

use std::io;

/// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
const VERSION: u32 = 1;

/// The version of the kernel's Landlock interface, 1 or more.
///
/// # Errors
/// `ENOSYS` where the kernel has none, `EOPNOTSUPP` where it was not switched on at boot.
pub(crate) fn version() -> io::Result<i64> {
    let no_attributes = std::ptr::null::<u8>();
    // SAFETY: with this flag the kernel takes no attributes and only gives its version.
    super::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, 0_usize, VERSION)
    })
}
