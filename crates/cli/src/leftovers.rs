//! Files that are removed when a signal ends this process: those that are not whole yet.
//!
//! SIGHUP, SIGINT and SIGTERM are handled from the first such file on. The process then ends by the
//! signal, as it would have without the handling: a shell that runs a script stops at Ctrl-C only
//! if the program that it ran has ended by it.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;

use rustix::process::Signal;
use tempfile::{NamedTempFile, PersistError};
use tokio::signal::unix::{SignalKind, signal};

use crate::sys::signal::{end_by, is_ignored};

static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers { watched: false, files: BTreeSet::new() });

struct Leftovers {
    /// Whether signals are handled.
    watched: bool,
    files: BTreeSet<PathBuf>,
}

/// A file that is removed when it is dropped, and when a signal ends the process.
pub(crate) struct Temporary {
    // Removed before it leaves the list: fields are dropped in this order.
    file: NamedTempFile,
    listed: Listed,
}

/// An entry of the list.
struct Listed(PathBuf);

impl Temporary {
    /// Takes the file that `make` makes.
    ///
    /// # Errors
    /// Those of `make`, and where signals cannot be handled.
    pub(crate) fn make(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<Self> {
        let mut leftovers = lock();
        if !leftovers.watched {
            watch()?;
            leftovers.watched = true;
        }
        // A signal waits for the lock: it finds the file in the list, or comes before it is made.
        let file = make()?;
        let path = file.path().to_owned();
        leftovers.files.insert(path.clone());
        drop(leftovers);
        Ok(Self { file, listed: Listed(path) })
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Gives the file the name `path`, in place of what has it. It stays.
    ///
    /// # Errors
    /// The kernel's. Then the file is removed.
    pub(crate) fn rename(self, path: &Path) -> io::Result<()> {
        self.keep(|file| file.persist(path))
    }

    /// Gives the file the name `path` if nothing has it. It stays.
    ///
    /// # Errors
    /// The kernel's. Then the file is removed.
    pub(crate) fn link(self, path: &Path) -> io::Result<()> {
        self.keep(|file| file.persist_noclobber(path))
    }

    fn keep(self, keep: impl FnOnce(NamedTempFile) -> Result<File, PersistError>) -> io::Result<()> {
        let Self { file, listed } = self;
        // A signal waits for the lock: it comes before the file has its name, or after.
        let mut leftovers = lock();
        let kept = keep(file).map(drop).map_err(|failure| failure.error);
        leftovers.files.remove(&listed.0);
        kept
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock().files.remove(&self.0);
    }
}

fn lock() -> MutexGuard<'static, Leftovers> {
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles signals on a thread of its own.
fn watch() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut watched = Vec::new();
    for number in [Signal::HUP, Signal::INT, Signal::TERM] {
        // Programs that nohup starts go on after their terminal.
        if !is_ignored(number)? {
            watched.push((number, signal(SignalKind::from_raw(number.as_raw()))?));
        }
    }
    drop(entered);
    let first = poll_fn(move |context| {
        for (number, signal) in &mut watched {
            if signal.poll_recv(context).is_ready() {
                return Poll::Ready(*number);
            }
        }
        Poll::Pending
    });
    let signals = thread::Builder::new().name("signals".to_owned());
    signals.spawn(move || {
        let number = runtime.block_on(first);
        let leftovers = lock();
        for file in &leftovers.files {
            // What cannot be removed stays: nobody is left to be told.
            std::fs::remove_file(file).ok();
        }
        end_by(number)
    })?;
    Ok(())
}
