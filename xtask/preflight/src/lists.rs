//! apt's package lists: updated once a run, when a look-up, an installation or a download fails.
//!
//! Lists that are present may be old: they lack new packages, and name files that the archive
//! has removed. Their age does not tell; a failure does.

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::apt;
use crate::say::step;

/// Whether this run has updated the lists.
static UPDATED: Mutex<bool> = Mutex::new(false);

/// What became of an attempt to update the lists.
enum Update {
    /// `apt-get update` ran; the error is that of its exit.
    Ran(Result<()>),
    /// It ran earlier in this run.
    Earlier,
    /// This user may not.
    Refused,
}

/// Does `work`, which depends on apt's package lists. Where it fails, updates the lists, once a
/// run, and does it again.
///
/// # Errors
/// That of `work`, with what to do about the lists.
pub fn with_fresh<T>(work: impl FnMut() -> Result<T>) -> Result<T> {
    retried(work, update_once)
}

/// Updates the lists for a command that asks for the newest packages, unless this run has updated
/// them or this user may not.
pub fn refresh() {
    if let Update::Ran(Err(error)) = update_once() {
        // Lists of other archives may be at fault; a look-up that fails says more.
        crate::say::note(&format!("{error:#}"));
    }
}

fn retried<T>(mut work: impl FnMut() -> Result<T>, update: impl FnOnce() -> Update) -> Result<T> {
    let error = match work() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    match update() {
        Update::Ran(Ok(())) => work(),
        // One archive of several may have failed: another try tells.
        Update::Ran(Err(failure)) => work().map_err(|error| joined(&error, &format!("{failure:#}"))),
        Update::Earlier => Err(error),
        Update::Refused => {
            Err(joined(&error, "apt's package lists may be missing or old: run `apt-get update` as root"))
        }
    }
}

fn joined(error: &Error, more: &str) -> Error {
    anyhow!("{error:#}; {more}")
}

fn update_once() -> Update {
    let mut updated = UPDATED.lock().unwrap_or_else(PoisonError::into_inner);
    if *updated {
        return Update::Earlier;
    }
    if !apt::may_install() {
        return Update::Refused;
    }
    *updated = true;
    step("apt's package lists are missing or old: updating them");
    Update::Ran(apt::get(&["update", "--quiet=2"]))
}

/// Fails unless the lists hold an archive of Debian's own.
///
/// # Errors
/// They do not, or there is no apt.
pub fn know_debian() -> Result<()> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(CREATED_BY) $(ORIGIN)"])
        .stdin(Stdio::null())
        .output()
        .context("starting apt-get: this needs Debian")?;
    if !String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "Packages Debian") {
        bail!("apt's package lists hold no archive of Debian");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Fails the first `failures` times.
    fn work(failures: u32, tries: &Cell<u32>) -> impl FnMut() -> Result<u32> {
        move || {
            tries.set(tries.get() + 1);
            if tries.get() > failures { Ok(tries.get()) } else { bail!("no such package") }
        }
    }

    #[test]
    fn work_that_succeeds_updates_nothing() {
        let tries = Cell::new(0);
        assert_eq!(retried(work(0, &tries), || panic!("updated in vain")).unwrap(), 1);
    }

    #[test]
    fn work_that_fails_on_old_lists_is_done_again_on_new_ones() {
        for exit in [Ok(()), Err(anyhow!("one archive of three failed"))] {
            let tries = Cell::new(0);
            assert_eq!(retried(work(1, &tries), || Update::Ran(exit)).unwrap(), 2);
        }
    }

    #[test]
    fn work_is_done_twice_at_most() {
        let tries = Cell::new(0);
        let error = retried(work(9, &tries), || Update::Ran(Ok(()))).unwrap_err();
        assert_eq!((tries.get(), error.to_string()), (2, "no such package".to_owned()));
        let error = retried(work(9, &tries), || Update::Ran(Err(anyhow!("no network")))).unwrap_err();
        assert_eq!(error.to_string(), "no such package; no network");
    }

    #[test]
    fn lists_that_were_updated_in_this_run_are_not_updated_again() {
        let tries = Cell::new(0);
        assert!(retried(work(1, &tries), || Update::Earlier).is_err());
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn users_who_may_not_update_are_told_what_to_run() {
        let tries = Cell::new(0);
        let error = retried(work(1, &tries), || Update::Refused).unwrap_err().to_string();
        assert!(
            error.starts_with("no such package; ") && error.contains("`apt-get update` as root"),
            "{error}"
        );
        assert_eq!(tries.get(), 1);
    }
}
