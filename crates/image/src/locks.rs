//! Locks on a disk's file. They belong to the open file, and go with its descriptors: a VM's last
//! as long as its VMM does, whatever becomes of the daemon that took them.
//!
//! Two kinds are taken. `flock` holds the whole file, shared or exclusively. QEMU and its tools use
//! byte ranges: byte 100 + n is locked by those that use permission n, byte 200 + n by those that
//! do not share it with others (QEMU's `block/file-posix.c`). All these locks are shared; a program
//! takes its own, then looks whether others hold what contradicts them.

use std::fs::File;
use std::io;

use plimsoll_sys::ofd_lock;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// QEMU's bytes for permissions that are used, and for those that are not shared.
const USED: u64 = 100;
const UNSHARED: u64 = 200;
/// QEMU's permissions, as offsets from these bytes.
const READ: u64 = 0;
const WRITE: u64 = 1;

/// Permissions that are used on a disk.
fn used(read_only: bool) -> &'static [u64] {
    if read_only { &[READ] } else { &[READ, WRITE] }
}

/// Locks `file` to read it, with others that do, or to write it alone.
/// Returns whether no lock of others stands against that.
///
/// # Errors
/// The file system has no `flock`, or another error of the kernel's.
pub fn take(file: &File, read_only: bool) -> io::Result<bool> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(e) => return Err(e.into()),
    }
    let bytes = used(read_only).iter().map(|n| USED + n).chain([UNSHARED + WRITE]);
    for byte in bytes {
        match ofd_lock::share(file, byte) {
            Err(e) if is_contended(&e) => return Ok(false),
            Err(e) if is_unsupported(&e) => return Ok(true),
            result => result?,
        }
    }
    conflicts(file, read_only).map(|conflicts| !conflicts)
}

/// Whether QEMU's locks of others on `file` stand against reading it, or against writing it.
///
/// # Errors
/// An error of the kernel's.
pub fn conflicts(file: &File, read_only: bool) -> io::Result<bool> {
    // A reader does not share writing either, so it excludes no other reader.
    for byte in used(read_only).iter().map(|n| UNSHARED + n).chain([USED + WRITE]) {
        match ofd_lock::is_held(file, byte) {
            Ok(false) => {}
            Err(e) if is_unsupported(&e) => return Ok(false),
            held => return held,
        }
    }
    Ok(false)
}

fn is_contended(error: &io::Error) -> bool {
    let held = [Errno::AGAIN, Errno::ACCESS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| held.contains(&code))
}

/// Whether the file system has no locks of that kind, so that nobody holds any.
pub fn is_unsupported(error: &io::Error) -> bool {
    let none = [Errno::OPNOTSUPP, Errno::NOLCK, Errno::NOSYS, Errno::INVAL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| none.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// As QEMU holds an image: permissions that it uses, and those that it does not share.
    fn qemu(path: &Path, used: &[u64], unshared: &[u64]) -> File {
        let file = File::options().read(true).write(true).open(path).unwrap();
        used.iter().for_each(|n| ofd_lock::share(&file, USED + n).unwrap());
        unshared.iter().for_each(|n| ofd_lock::share(&file, UNSHARED + n).unwrap());
        file
    }

    #[test]
    fn a_lock_that_others_hold_is_not_taken_for_one_that_there_is_not() {
        for none in [Errno::OPNOTSUPP, Errno::NOLCK] {
            assert!(is_unsupported(&none.into()), "{none}");
        }
        for other in [Errno::WOULDBLOCK, Errno::ACCESS, Errno::IO] {
            assert!(!is_unsupported(&other.into()), "{other}");
        }
    }

    fn takes(path: &Path, read_only: bool) -> bool {
        let file = File::options().read(true).write(!read_only).open(path).unwrap();
        take(&file, read_only).unwrap()
    }

    #[test]
    fn locks_of_qemu_count() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let path = image.path();
        let writer = qemu(path, &[READ, WRITE], &[WRITE]);
        assert!(!takes(path, true) && !takes(path, false), "QEMU writes it");
        drop(writer);
        let reader = qemu(path, &[READ], &[WRITE]);
        assert!(takes(path, true) && !takes(path, false), "QEMU reads it, and nobody may write");
        drop(reader);
        let shares_writing = qemu(path, &[READ, WRITE], &[]);
        assert!(!takes(path, true) && !takes(path, false), "QEMU writes it, and others may too");
        drop(shares_writing);
        let alone = qemu(path, &[], &[READ]);
        assert!(!takes(path, true) && !takes(path, false), "a program such as qemu-img is at work");
        drop(alone);
        assert!(takes(path, true) && takes(path, false));
    }

    #[test]
    fn qemu_sees_ours() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let qemu = File::options().read(true).write(true).open(image.path()).unwrap();
        let held = || [100, 101, 200, 201].map(|byte| ofd_lock::is_held(&qemu, byte).unwrap());
        for (read_only, bytes) in [(false, [true, true, false, true]), (true, [true, false, false, true])] {
            let file = File::options().read(true).write(!read_only).open(image.path()).unwrap();
            assert!(take(&file, read_only).unwrap());
            assert_eq!(held(), bytes);
            // A descriptor of the same open file keeps them, as the VMM's does.
            let passed = file.try_clone().unwrap();
            drop(file);
            assert_eq!(held(), bytes);
            drop(passed);
            assert_eq!(held(), [false; 4]);
        }
    }
}
