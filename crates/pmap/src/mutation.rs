//! Deliberate defects, for tests to show that they would be noticed.
//!
//! No production code knows of them. Most are in a stand-in for a part of the crate, which test
//! builds use in its place: `memory/defects.rs` for the kernel, `account/defects.rs`,
//! `page/defects.rs` and `content/swap/defects.rs`. The others are in what a test does:
//! `inject.rs`.

/// A rule of the crate, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A chunk becomes large without being charged (invariant 1).
    UnchargedLarge,
    /// Device I/O does not lock its pages (invariants 3 and 5).
    UnlockedIo,
    /// A chunk is given back before it is armed (invariant 6).
    LateArming,
    /// A served page does not wake the threads that wait for it.
    NoWake,
    /// The touch of a chunk that is aside is not counted.
    UncountedTouch,
    /// A chunk that is aside is given back as if it were in its place (invariant 6).
    StrandedAside,
    /// A page is copied and dropped without having been write-protected (invariant 3).
    NoProtection,
    /// A page that has a copy in the swap is not write-protected, so that the copy goes stale
    /// (invariant 3).
    StaleCopy,
    /// A page that was read or written is taken to be what it was when that began (invariants 3 and
    /// 4).
    BlindCompletion,
    /// A page is shared with a frame without having been compared with it (invariants 3 and 4).
    BlindSharing,
    /// A page that was written before its frame was guarded is taken to be the frame (invariant 1).
    UnseenWrite,
    /// A page that is to be taken out of a frame's mapping stays in it (invariants 3 and 4).
    NoRehoming,
    /// The frame of a shared page is given back before the page has a copy of its own (invariant
    /// 4).
    EarlyDeparture,
    /// A slot of the swap is reused while I/O on it is in flight (invariants 3 and 4).
    EarlyReuse,
}
