/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the disk into the guest's buffers.
    Read,
    /// From the guest's buffers to the disk.
    Write,
}
