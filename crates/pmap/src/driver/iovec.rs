//! Pinned guest memory as the kernel's `struct iovec`.

use plimsoll_sys::iovec::{Buffers, IoVec};

use super::pin::IoGuard;

// SAFETY: the list and the mapping that it points into are the guard's own as long as it lives, and
// so are the pages: they are in no transition. They are reached only by volatile and atomic
// accesses, because the guest writes them at the same time in any case.
unsafe impl Buffers for IoGuard {
    fn iovecs(&mut self) -> &[IoVec] {
        self.pieces()
    }
}
