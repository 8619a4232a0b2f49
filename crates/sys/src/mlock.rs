//! mlock(2): memory that never goes to the host's swap.

use std::io;

/// Keeps the pages on which `value` lies in machine memory until they are unmapped, so that its
/// bytes never reach the host's swap. What `value` points to is not part of it, and copies of it
/// elsewhere are not either.
///
/// # Errors
/// The process may not lock as much (`RLIMIT_MEMLOCK`).
pub fn keep_in_memory<T>(value: &T) -> io::Result<()> {
    let start = std::ptr::from_ref(value).cast_mut().cast();
    // SAFETY: mlock neither reads nor changes what lies in the range. The range is mapped, since a
    // reference points to it, and the kernel checks it as well.
    unsafe { rustix::mm::mlock(start, size_of::<T>()) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that this process has locked.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    #[test]
    fn the_kernel_counts_the_pages_as_locked() {
        let before = locked();
        let value = Box::new([1_u8; 3 * 4096]);
        keep_in_memory(&*value).unwrap();
        assert!((3 * 4096..=4 * 4096).contains(&(locked() - before)), "{} {before}", locked());
    }
}
