//! One daemon per state directory, and per run directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Holds the lock at `path` for as long as the returned file lives, whatever ends the daemon.
///
/// # Errors
/// Another daemon holds it: which one.
pub(crate) fn take(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0)?;
            write!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!(
                "the directory {} is in use by another plimsolld (process {}): end that one, or give this one directories of its own",
                path.parent().unwrap_or(path).display(),
                holder.trim()
            );
        }
        Err(e) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forks::apart;

    #[test]
    fn a_second_daemon_is_told_of_the_first() {
        let _apart = apart();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = take(&path).unwrap();
        let error = take(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(take(&path).is_ok());
    }
}
