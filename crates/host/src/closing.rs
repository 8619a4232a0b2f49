//! What is closed beside the daemon's loop.
//!
//! A VMM that a guest has taken over may pass any descriptor, and its connection may hold messages
//! with more of them. The last close of a file that has no name frees its space, which takes
//! seconds for the swap space of a large VM. The loop would stand still for that long.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::runtime::Handle;

/// Drops what it holds on a thread that may wait, wherever it is dropped itself: the thread for
/// shared pages may wait as little as the loop.
#[derive(Debug)]
pub(crate) struct Closing<T: Send + 'static> {
    what: Option<T>,
    /// That within which it was made; `None`: it is dropped at once.
    runtime: Option<Handle>,
}

impl<T: Send + 'static> Closing<T> {
    pub(crate) fn new(what: T) -> Self {
        Self { what: Some(what), runtime: Handle::try_current().ok() }
    }
}

impl<T: Send + 'static> Drop for Closing<T> {
    fn drop(&mut self) {
        let what = self.what.take();
        match self.runtime.take() {
            Some(runtime) => drop(runtime.spawn_blocking(move || drop(what))),
            None => drop(what),
        }
    }
}

impl<T: Send + 'static> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.what.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: AsFd + Send + 'static> AsFd for Closing<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{ThreadId, current};

    use super::*;

    /// Tells on which thread it is dropped.
    #[derive(Debug)]
    struct Tells(mpsc::Sender<ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(current().id()).unwrap();
        }
    }

    #[test]
    fn what_is_made_within_a_runtime_is_closed_on_a_thread_that_may_wait() {
        let (sender, dropped) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { drop(Closing::new(Tells(sender.clone()))) });
        assert_ne!(dropped.recv().unwrap(), current().id());
        // As the thread for shared pages does, which is none of the runtime's.
        let passed = runtime.block_on(async { Closing::new(Tells(sender.clone())) });
        let other = std::thread::spawn(move || {
            drop(passed);
            current().id()
        });
        let other = other.join().unwrap();
        let closed = dropped.recv().unwrap();
        assert!(closed != other && closed != current().id());
        drop(Closing::new(Tells(sender)));
        assert_eq!(dropped.recv().unwrap(), current().id(), "there is no runtime");
    }
}
