//! The state machine model-checked: the crate's own transitions, on a kernel of our own, under a scheduler that decides at
//! every lock and every system call which thread goes on.
//!
//! Two vCPUs write, verify and give up pages, a device reads and writes pinned memory behind the page tables' back, a guest
//! without manners reports pages as free that are in use, an auditor compares, a sampler puts chunks aside, the host grants and
//! takes back, and one thread serves the faults. All of `fault.rs`, `release.rs`, `pin.rs`, `aside.rs`, `account.rs` and
//! `waiting.rs` is what runs in production; `uffd.rs`, `mmap.rs` and `pagemap.rs` are replaced by those beside this file, over [`kernel`].
//!
//! Found are: content that is lost or not the page's own, a VM above its grant, a state with which the kernel disagrees
//! ([`Pmap::audit`](crate::Pmap::audit)), locks in the wrong order, and anybody who waits for ever. Every defect of
//! `mutation.rs` must be found too.
//!
//! # Running it
//!
//! `cargo test -p plimsoll-pmap --lib --features model-check model_check`
//!
//! | variable | meaning |
//! |---|---|
//! | `PLIMSOLL_MODEL_RUNS` | executions of each test under each scheduler; [`RUNS`] without it |
//! | `PLIMSOLL_MODEL_SCHEDULE` | the schedule to run again, as a failure printed it; name the one test that failed |
//!
//! A random scheduler finds what many small delays bring about; PCT (Burckhardt 2010) what a few long ones do.

pub(crate) mod kernel;

mod guest;
mod host;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use plimsoll_units::{Pages, Ppn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::sync::Arc;
use shuttle::{Config, FailurePersistence, Runner, thread};
use vmm_sys_util::eventfd::EventFd;

use crate::mutation::Mutation;
use crate::pmap::Pmap;
use crate::uffd::Uffd;
use crate::{PpnRange, Release, Sampler};
use guest::{CHUNKS, Guest};
use host::Host;
use kernel::kernel;

/// Executions of a test under each scheduler: some twenty seconds for all tests together.
const RUNS: usize = 10_000;
/// Executions after which a defect must have been found under one of the schedulers. The rarest takes a few hundred.
const RUNS_FOR_A_DEFECT: usize = 20_000;
/// Long delays in one execution under PCT. Most defects need one or two.
const DELAYS: usize = 3;
/// Steps after which somebody must be running in circles. An execution has some thousand.
const MOST_STEPS: usize = 200_000;

/// What is checked.
#[derive(Clone, Copy, Debug)]
struct Case {
    huge_pages: bool,
    mutation: Option<Mutation>,
}

/// One execution. At first there is a grant for nothing, some pages, a chunk, or everything.
fn execute(case: Case) {
    let host = Arc::new(Host::default());
    let config = crate::Config {
        regions: vec![PpnRange::new(Ppn(0), Pages(CHUNKS * Pages::CHUNK.0))],
        uffd: Uffd,
        huge_pages: case.huge_pages,
        grant: Pages([0, 3, 512, 1100][thread_rng().gen_range(0..4)]),
    };
    let pmap = Pmap::new(config, host.clone()).unwrap();
    pmap.mutate(case.mutation);
    let server = spawn(&pmap, |pmap| pmap.serve_faults(&EventFd::new(0).unwrap()).unwrap());
    let granter = {
        let host = host.clone();
        spawn(&pmap, move |pmap| host.grant(pmap))
    };
    let rude = spawn(&pmap, be_rude);
    let guests = [0, 1].map(|id| spawn(&pmap, move |pmap| Guest::new(pmap, id).run_vcpu()));
    let sampler = spawn(&pmap, sample);
    let device = spawn(&pmap, |pmap| Guest::new(pmap, 2).run_device());
    guests.into_iter().chain([device, rude, sampler]).for_each(|thread| thread.join().unwrap());
    host.close();
    granter.join().unwrap();
    // It may yet answer a fault whose sender had what it wanted from somebody else: with a page that nobody needs.
    kernel().stop();
    server.join().unwrap();
    audit(&pmap);
    pmap.reset().unwrap();
    assert_eq!(pmap.stats().held, Pages::ZERO, "held after a reset");
    audit(&pmap);
}

fn spawn(pmap: &Arc<Pmap>, work: impl FnOnce(&Arc<Pmap>) + Send + 'static) -> thread::JoinHandle<()> {
    let pmap = pmap.clone();
    thread::spawn(move || work(&pmap))
}

/// Reports pages as free that a device or a vCPU uses.
fn be_rude(pmap: &Arc<Pmap>) {
    for _ in 0..3 {
        let chunk = thread_rng().gen_bool(0.5);
        let range = if chunk { guest::scratch_chunk() } else { PpnRange::page(guest::DEVICES_OWN) };
        pmap.release(&[range], Release::Reported);
        audit(pmap);
    }
}

/// Puts all large chunks aside, twice. Enough samples are drawn that chance, over which shuttle has no say, leaves none out.
fn sample(pmap: &Arc<Pmap>) {
    let mut sampler = Sampler::new(pmap.clone(), 40);
    for _ in 0..2 {
        sampler.begin();
        thread::yield_now();
    }
}

fn audit(pmap: &Pmap) {
    if let Err(found) = pmap.audit() {
        panic!("{}", found[0]);
    }
}

fn config(persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    // The pmap copies pages on its stack.
    config.stack_size = 1 << 18;
    config.failure_persistence = persistence;
    config.max_steps = shuttle::MaxSteps::FailAfter(MOST_STEPS);
    config.silence_warnings = true;
    config
}

fn run(
    case: Case,
    scheduler: impl Scheduler + 'static,
    persistence: FailurePersistence,
) -> Result<usize, String> {
    let runner = Runner::new(scheduler, config(persistence));
    let result = catch_unwind(AssertUnwindSafe(|| runner.run(move || execute(case))));
    result.map_err(|payload| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => {
            payload.downcast::<&str>().map_or_else(|other| resume_unwind(other), |text| (*text).to_owned())
        }
    })
}

/// Checks `case`, in the test `name`.
fn check(name: &str, huge_pages: bool) {
    let case = Case { huge_pages, mutation: None };
    let runs =
        variable("PLIMSOLL_MODEL_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number of executions"));
    let result = match variable("PLIMSOLL_MODEL_SCHEDULE") {
        Some(schedule) => {
            run(case, ReplayScheduler::new_from_encoded(schedule.trim()), FailurePersistence::None)
        }
        None => run(case, RandomScheduler::new(runs), FailurePersistence::Print)
            .and_then(|_| run(case, PctScheduler::new(DELAYS, runs), FailurePersistence::Print)),
    };
    if let Err(failure) = result {
        panic!(
            "{failure}\nto run this again, with the schedule printed above:\n\
             PLIMSOLL_MODEL_SCHEDULE='...' cargo test -p plimsoll-pmap --lib --features model-check {name}"
        );
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs the check with a defect until it is found, and returns how.
fn found(mutation: Mutation) -> String {
    let case = Case { huge_pages: true, mutation: Some(mutation) };
    run(case, RandomScheduler::new(RUNS_FOR_A_DEFECT), FailurePersistence::None)
        .and_then(|_| run(case, PctScheduler::new(DELAYS, RUNS_FOR_A_DEFECT), FailurePersistence::None))
        .expect_err("the defect goes unnoticed")
}

#[test]
fn every_schedule_keeps_content_and_account() {
    check("every_schedule_keeps_content_and_account", true);
}

#[test]
fn every_schedule_keeps_content_and_account_page_by_page() {
    check("every_schedule_keeps_content_and_account_page_by_page", false);
}

#[test]
fn an_execution_can_be_run_again() {
    let case = Case { huge_pages: true, mutation: None };
    let scheduler = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new(200));
    run(case, scheduler, FailurePersistence::None).unwrap();
}

#[test]
fn a_chunk_that_is_not_charged_is_found() {
    let failure = found(Mutation::UnchargedLarge);
    assert!(failure.contains("counted as held"), "{failure}");
}

#[test]
fn io_on_unlocked_pages_is_found() {
    let failure = found(Mutation::UnlockedIo);
    assert!(failure.contains("device"), "{failure}");
}

#[test]
fn a_chunk_given_back_before_it_is_armed_is_found() {
    let failure = found(Mutation::LateArming);
    assert!(failure.contains("should be absent"), "{failure}");
}

#[test]
fn a_chunk_forgotten_aside_is_found() {
    let failure = found(Mutation::StrandedAside);
    assert!(failure.contains("aside") || failure.contains("lost"), "{failure}");
}

#[test]
fn a_missing_wake_is_found() {
    let failure = found(Mutation::NoWake);
    assert!(failure.contains("deadlock"), "{failure}");
}
