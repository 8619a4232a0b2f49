//! Every defect must be found.

use shuttle::FailurePersistence;
use shuttle::scheduler::{PctScheduler, RandomScheduler};

use super::{Case, DELAYS, PAGING, RELEASE, SHARING, run};
use crate::mutation::Mutation;

/// Executions after which a defect must have been found under one of the schedulers. The rarest
/// takes a few hundred.
const RUNS_FOR_A_DEFECT: usize = 20_000;

/// Runs the check with a defect until it is found, and returns how.
fn found(case: Case, mutation: Mutation) -> String {
    let case = Case { mutation: Some(mutation), ..case };
    run(case, RandomScheduler::new(RUNS_FOR_A_DEFECT), FailurePersistence::None)
        .and_then(|_| run(case, PctScheduler::new(DELAYS, RUNS_FOR_A_DEFECT), FailurePersistence::None))
        .expect_err("the defect goes unnoticed")
}

#[test]
fn a_chunk_that_is_not_charged_is_found() {
    let failure = found(RELEASE, Mutation::UnchargedLarge);
    assert!(failure.contains("counted as held"), "{failure}");
}

#[test]
fn io_on_unlocked_pages_is_found() {
    let failure = found(RELEASE, Mutation::UnlockedIo);
    assert!(failure.contains("device"), "{failure}");
}

#[test]
fn paging_of_unlocked_pages_is_found() {
    let failure = found(PAGING, Mutation::UnlockedIo);
    assert!(failure.contains("device"), "{failure}");
}

#[test]
fn a_chunk_given_back_before_it_is_armed_is_found() {
    let failure = found(RELEASE, Mutation::LateArming);
    assert!(failure.contains("should be absent"), "{failure}");
}

#[test]
fn a_chunk_forgotten_aside_is_found() {
    let failure = found(RELEASE, Mutation::StrandedAside);
    assert!(failure.contains("aside") || failure.contains("lost"), "{failure}");
}

#[test]
fn a_missing_wake_is_found() {
    let failure = found(RELEASE, Mutation::NoWake);
    assert!(failure.contains("deadlock"), "{failure}");
}

#[test]
fn pages_copied_without_protection_are_found() {
    let failure = found(PAGING, Mutation::NoProtection);
    assert!(failure.contains("lost"), "{failure}");
}

#[test]
fn a_page_shared_without_a_look_is_found() {
    let failure = found(SHARING, Mutation::BlindSharing);
    assert!(failure.contains("lost"), "{failure}");
}

#[test]
fn a_frame_given_back_before_it_is_copied_is_found() {
    let failure = found(SHARING, Mutation::EarlyDeparture);
    assert!(failure.contains("lost"), "{failure}");
}

#[test]
fn pages_shared_without_protection_are_found() {
    let failure = found(SHARING, Mutation::NoProtection);
    assert!(failure.contains("lost") || failure.contains("write-protected"), "{failure}");
}

#[test]
fn a_write_before_a_frame_is_guarded_is_found() {
    let failure = found(SHARING, Mutation::UnseenWrite);
    assert!(failure.contains("shared, and own"), "{failure}");
}

#[test]
fn a_page_taken_from_within_a_frames_mapping_is_found() {
    let failure = found(Case { paging: true, ..SHARING }, Mutation::NoRehoming);
    // The page may be a frame again that is never made writable: a thread that writes it asks for
    // ever.
    let told = ["audit", "lost", "never absent", "max_steps"];
    assert!(told.iter().any(|told| failure.contains(told)), "{failure}");
}

/// Two pages in one slot show at the first place that is checked: in a page's content, in the
/// account, at the slot, or in a thread that waits for the slot to be free.
fn told_of_a_slot(failure: &str) {
    let told =
        ["audit", "lost", "slots in use only", "freed once", "written before", "page's state", "max_steps"];
    assert!(told.iter().any(|told| failure.contains(told)), "{failure}");
}

#[test]
fn a_completion_that_does_not_look_is_found() {
    told_of_a_slot(&found(PAGING, Mutation::BlindCompletion));
}

#[test]
fn a_slot_reused_too_early_is_found() {
    told_of_a_slot(&found(PAGING, Mutation::EarlyReuse));
}

#[test]
fn a_stale_copy_in_the_swap_is_found() {
    let failure = found(PAGING, Mutation::StaleCopy);
    assert!(failure.contains("should not be") || failure.contains("lost"), "{failure}");
}
