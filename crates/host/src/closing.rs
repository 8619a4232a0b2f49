//! What is closed beside the daemon's loop.
//!
//! A VMM that a guest has taken over may pass any descriptor, and its connection may hold messages
//! with more of them. The last close of a file that has no name frees its space, which takes
//! seconds for the swap space of a large VM. The loop would stand still for that long.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::runtime::Handle;

/// Drops what it holds on a thread that may wait; at once where there is no runtime.
#[derive(Debug)]
pub(crate) struct Closing<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Closing<T> {
    pub(crate) fn new(what: T) -> Self {
        Self(Some(what))
    }
}

impl<T: Send + 'static> Drop for Closing<T> {
    fn drop(&mut self) {
        let what = self.0.take();
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(what))),
            Err(_) => drop(what),
        }
    }
}

impl<T: Send + 'static> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
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
    fn what_a_task_drops_is_closed_on_another_thread() {
        let (sender, dropped) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { drop(Closing::new(Tells(sender.clone()))) });
        assert_ne!(dropped.recv().unwrap(), current().id());
        drop(Closing::new(Tells(sender)));
        assert_eq!(dropped.recv().unwrap(), current().id(), "there is no runtime");
    }
}
