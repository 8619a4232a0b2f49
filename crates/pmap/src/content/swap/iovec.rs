//! A task's buffers as the kernel's `struct iovec`.

use plimsoll_sys::iovec::{Buffers, IoVec};

use super::task::Task;

// SAFETY: the list is on the heap, and the buffers are pages of a mapping that live as long as the
// task. A read has its buffers to itself, and nothing looks into them while an engine has the task;
// those of a write are shared, and are not changed.
unsafe impl Buffers for Task {
    fn iovecs(&mut self) -> &[IoVec] {
        self.list_memory()
    }
}
