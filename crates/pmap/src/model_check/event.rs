//! What `plimsoll_sys::event` is in production. Here an event tells the model's kernel, which wakes
//! the threads that serve faults.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::model_check::kernel::kernel;

/// The model's eventfd. There is one.
#[derive(Clone, Debug)]
pub(super) struct Event(Arc<File>);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/dev/null")?)))
    }

    pub(super) fn signal(&self) {
        kernel().signal(true);
    }

    pub(super) fn clear(&self) {
        kernel().signal(false);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
