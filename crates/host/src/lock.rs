//! One daemon per state directory, and per run directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a lock may still be held by what a daemon has left: a process that was about to become
/// a VMM has the daemon's descriptors until it has executed. Less, and a daemon that follows at
/// once is refused; more, and a second daemon is told later that there is one.
const LEAVING: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

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
    let deadline = Instant::now() + LEAVING;
    let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    while locked == Err(Errno::WOULDBLOCK) && Instant::now() < deadline {
        std::thread::sleep(TICK);
        locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
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
        // A process that is about to become a VMM has a copy.
        let copy = first.try_clone().unwrap();
        drop(first);
        let leaves = std::thread::spawn(move || {
            std::thread::sleep(LEAVING / 10);
            drop(copy);
        });
        take(&path).unwrap();
        leaves.join().unwrap();
    }
}
