//! What `swap/event.rs` is in production: here it tells the model's kernel, which wakes who serves
//! faults.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::model_check::kernel::kernel;

/// The model's eventfd. There is one.
#[derive(Debug)]
pub(super) struct Event(File);

impl Event {
    pub(super) fn new() -> io::Result<Self> {
        File::open("/dev/null").map(Self)
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
