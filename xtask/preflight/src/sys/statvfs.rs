//! `statvfs(3)`: how much space a file system has.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that this user may still write to the file system of `path`.
pub(crate) fn free(path: &Path) -> io::Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut facts = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name ends with a zero byte, and `facts` has room for what the call writes.
    if unsafe { libc::statvfs(name.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so all of it is written.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_a_size_and_a_missing_file_has_none() {
        assert!(free(Path::new("/")).is_ok());
        assert!(free(Path::new("/no/such/place")).is_err());
    }
}
