//! Tests that need the kernel's part: each runs a pmap with a thread that serves its faults.
//!
//! # Invariants, and what would notice a breach
//!
//! | invariant of ARCHITECTURE.md | test |
//! |---|---|
//! | 1: held never exceeds the grant; only the fault that would waits | `tests::stress` with its auditor, `tests::basics::a_fault_beyond_the_grant_waits_and_others_do_not` |
//! | 3: no write is lost | `tests::stress` (verified generations), `tests::model`, `tests::paging`; on a device that fails `tests::failing_swap` |
//! | 3, 4: nor by sharing | `tests::counters` (frames are overwritten and reused as soon as they are given back), `tests::sharing` |
//! | 3: nor by sampling, which leaves huge pages whole | the same, and `tests::sampling` |
//! | 4: zeros or own content | the same: what comes back from the balloon must be zeros |
//! | 5: no transition under device I/O | `tests::stress` (devices against a guest that reports their buffers as free), `tests::basics::pages_under_io_stay` |
//! | 6: the kernel agrees (`Pmap::audit`) | the auditor in `tests::stress`, and after every step of `tests::model` |
//!
//! `model_check` checks all of them as well: it runs the same transitions on a kernel of its own
//! under thousands of schedules (`cargo test -p plimsoll-pmap --lib --features model-check
//! model_check`).
//!
//! Both are tested themselves: `mutation.rs` names deliberate defects that test builds switch on,
//! and `cargo test -p plimsoll-pmap notice` shows each of them found, as does the model check. Only
//! the model check sees a page that was written before its frame was guarded: to an audit that is a
//! write that waits.

mod basics;
mod counters;
mod direct_io;
mod failing_swap;
mod frames;
pub(crate) mod harness;
mod kvm;
mod model;
pub(crate) mod paging;
mod refusals;
mod sampling;
mod sharing;
mod stalled;
mod stress;
mod vcpu;
