/// Whether a page that is put in place wakes the threads that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// They try again.
    Waiters,
    /// They wait on, until they are woken by something else.
    Nobody,
}
