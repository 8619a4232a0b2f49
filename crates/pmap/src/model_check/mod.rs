//! The state machine model-checked: the crate's own transitions, on a kernel of our own, under a
//! scheduler that decides at every lock and every system call which thread goes on.
//!
//! Two vCPUs write, verify and give up pages; a device writes to pinned memory behind the page
//! tables' back; an operator takes pages, which are compressed and swapped to a disk that does
//! things late, in any order and in parts, and fails, and makes chunks large again; a hostile guest
//! reports pages as free that are in use; a sampler puts chunks aside; a scanner shares pages and
//! ends that, with frames of a daemon that is slow and often wrong; each thread compares
//! ([`Pmap::audit`](crate::Pmap::audit)); a host grants and takes back, and has pages taken when it
//! has none left; and one thread or two serve the faults.
//!
//! All transitions, the account, the store and the swap's slots, buffers and queues are those that
//! run in production. The files beside this one replace, over [`kernel`], `uffd.rs`, `mmap.rs`,
//! `pagemap.rs`, and of the swap `engine/` and its event.
//!
//! It finds content that is lost or not the page's own, a VM above its grant, a state with which
//! the kernel disagrees, locks in the wrong order, slots and frames that leak, and threads that
//! wait for ever. Every defect of `mutation.rs` must be found, except `UncountedTouch`, which loses
//! a figure and no page.
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
//! A random scheduler finds what many small delays bring about; PCT (Burckhardt 2010) what a few
//! long ones do.

pub(crate) mod kernel;

mod defects;
mod frames;
mod guest;
mod host;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_sys::Event;
use plimsoll_units::{Pages, Ppn};
use shuttle::rand::{Rng, RngCore, thread_rng};
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler,
};
use shuttle::sync::Arc;
use shuttle::{Config, FailurePersistence, Runner, thread};

use crate::address::ChunkNo;
use crate::address::PageSet;
use crate::memory::uffd::Uffd;
use crate::mutation::Mutation;
use crate::page::Backing;
use crate::page::step::observed::missing;
use crate::pmap::Pmap;
use crate::{PpnRange, Release, Sampler, ScanOrder, SharingTraffic, SwapSpace, Traffic};
use frames::Frames;
use guest::{CHUNKS, Guest};
use host::Host;
use kernel::kernel;

/// Executions of a test under each scheduler: half a minute for all tests together.
const RUNS: usize = 4000;
/// Long delays in one execution under PCT. Most defects need one or two.
const DELAYS: usize = 3;
/// Steps after which a thread must be running in circles. An execution has some thousand.
const MOST_STEPS: usize = 200_000;

/// What is checked.
#[derive(Clone, Copy, Debug)]
struct Case {
    huge_pages: bool,
    /// Pages are compressed and swapped.
    paging: bool,
    /// The guest reports pages as free that are in use, and chunks are put aside.
    release: bool,
    /// Pages are shared, and that ends again.
    sharing: bool,
    mutation: Option<Mutation>,
}

/// One execution.
fn execute(case: Case) {
    // What is drawn at random belongs to the schedule.
    fastrand::seed(thread_rng().next_u64());
    let one_of = |values: &[u64]| Pages(values[thread_rng().gen_range(0..values.len())]);
    let budget = one_of(if case.paging { &[8, 40, 520, 1100] } else { &[2000] });
    // For nothing, some pages, a chunk, or everything.
    let grant = one_of(&[0, 3, 512, 1100]).min(budget);
    let host = Arc::new(Host::new(budget, grant));
    let slots = one_of(&[6, 100]);
    let config = crate::Config {
        regions: vec![PpnRange::new(Ppn(0), Pages(CHUNKS * Pages::CHUNK.0))],
        uffd: Uffd,
        huge_pages: case.huge_pages,
        grant,
        store: if case.paging { one_of(&[0, 40, 100]) } else { Pages::ZERO },
        swap: case.paging.then(|| no_file(slots)),
    };
    let pmap = Pmap::new(config, host.clone()).unwrap();
    pmap.mutate(case.mutation);
    let serve = |pmap: &Arc<Pmap>| pmap.serve_faults(&Event::new().unwrap()).unwrap();
    let servers: Vec<_> = (0..thread_rng().gen_range(1..=2)).map(|_| spawn(&pmap, serve)).collect();
    let granter = with_host(&pmap, &host, Host::grant);
    let pager = with_host(&pmap, &host, Host::page_out);
    let disk = pmap.vm().content.swap().map(|swap| swap.faults());
    let worker = disk.clone().map(|disk| thread::spawn(move || disk.work()));

    let fills = case.paging || case.sharing;
    let vcpus = [0, 1].map(|id| Guest::vcpu(&pmap, id)).map(|vcpu| if fills { vcpu.fill() } else { vcpu });
    let device = Guest::device(&pmap);
    if let Some(disk) = &disk {
        match thread_rng().gen_range(0..4) {
            0 => disk.break_after(thread_rng().gen_range(0..6)),
            1 => disk.fail_reads(thread_rng().gen_range(1..4)),
            _ => {}
        }
    }
    let mut threads: Vec<_> = vcpus.map(|vcpu| thread::spawn(move || vcpu.run_vcpu(case.sharing))).into();
    threads.push(thread::spawn(move || device.run_device()));
    if case.paging {
        threads.push(spawn(&pmap, press));
    }
    if case.release {
        threads.extend([spawn(&pmap, be_rude), spawn(&pmap, sample)]);
    }
    if case.paging && case.release {
        threads.push(spawn(&pmap, release_what_is_read));
    }
    let frames = case.sharing.then(|| Frames::new(&host));
    if let Some(frames) = frames.clone() {
        threads.push(spawn(&pmap, move |pmap| share(pmap, &frames)));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    host.close();
    [granter, pager].into_iter().for_each(|thread| thread.join().unwrap());
    // It may yet answer a fault whose thread got its page otherwise: with a page that is not
    // needed.
    kernel().stop();
    servers.into_iter().for_each(|server| server.join().unwrap());
    audit(&pmap);
    host.agrees_at_last(&pmap);
    nothing_shared_is_own(&pmap);
    pmap.reset().unwrap();
    let left = frames.map_or(0, |frames| frames.references());
    assert_eq!((left, pmap.references()), (0, Vec::new()), "frames left after a reset");
    let stats = pmap.stats();
    assert_eq!((stats.held, stats.store), (Pages::ZERO, Pages::ZERO), "held after a reset");
    audit(&pmap);
    if let (Some(swap), Some(disk), Some(worker)) = (pmap.vm().content.swap(), disk, worker) {
        while !swap.is_idle() {
            crate::driver::faults::settle_swap(pmap.vm());
            thread::yield_now();
        }
        assert_eq!(swap.free_slots(), slots, "no slot is lost");
        disk.close();
        worker.join().unwrap();
    }
    note(stats.traffic, stats.sharing);
}

/// What went to and fro in all executions of paging.
static REACHED: std::sync::Mutex<Traffic> =
    std::sync::Mutex::new(Traffic { zipped: 0, unzipped: 0, swapped_out: 0, swapped_in: 0, zeros: 0 });

/// Pages that were shared in all executions, dropped because they held zeros, broken, and found to
/// be something else.
static SHARED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn note(traffic: Traffic, sharing: SharingTraffic) {
    let SharingTraffic { merged, zeroed, broken, mismatched, .. } = sharing;
    for (sum, pages) in SHARED.iter().zip([merged, zeroed, broken, mismatched]) {
        sum.fetch_add(pages, Ordering::Relaxed);
    }
    let mut reached = REACHED.lock().unwrap();
    reached.zipped += traffic.zipped;
    reached.unzipped += traffic.unzipped;
    reached.swapped_out += traffic.swapped_out;
    reached.swapped_in += traffic.swapped_in;
    reached.zeros += traffic.zeros;
}

fn spawn(pmap: &Arc<Pmap>, work: impl FnOnce(&Arc<Pmap>) + Send + 'static) -> thread::JoinHandle<()> {
    let pmap = pmap.clone();
    thread::spawn(move || work(&pmap))
}

fn with_host(pmap: &Arc<Pmap>, host: &Arc<Host>, work: fn(&Host, &Pmap)) -> thread::JoinHandle<()> {
    let host = host.clone();
    spawn(pmap, move |pmap| work(&host, pmap))
}

/// The model's disk needs no file, but the swap checks one.
fn no_file(slots: Pages) -> SwapSpace {
    SwapSpace { file: File::open("/dev/null").unwrap().into(), slots, encrypt: false }
}

/// Takes pages without need, and makes chunks large again.
fn press(pmap: &Arc<Pmap>) {
    for _ in 0..3 {
        if thread_rng().gen_bool(0.5) {
            pmap.page_out(Pages(thread_rng().gen_range(1..8)));
        } else {
            pmap.page_out_of(&[guest::any_pages()]);
        }
        audit(pmap);
        if pmap.promote(1) > 0 {
            PROMOTED.store(true, Ordering::Relaxed);
            audit(pmap);
        }
    }
}

/// Some execution has made a chunk large again.
static PROMOTED: AtomicBool = AtomicBool::new(false);

/// Reports pages as free, or as ballooned, that a device or a vCPU uses.
fn be_rude(pmap: &Arc<Pmap>) {
    for _ in 0..3 {
        let chunk = thread_rng().gen_bool(0.5);
        let range = if chunk { guest::scratch_chunk() } else { PpnRange::page(guest::DEVICES_OWN) };
        let how = if chunk && thread_rng().gen_bool(0.5) { Release::Ballooned } else { Release::Reported };
        pmap.release(&[range], how);
        audit(pmap);
    }
}

/// Reports a page as free that was taken, while somebody reads it: often it is on its way back.
fn release_what_is_read(pmap: &Arc<Pmap>) {
    let page = guest::nobodys();
    guest::write_nobodys();
    pmap.page_out_of(&[page]);
    let reader = thread::spawn(guest::read_nobodys);
    thread::yield_now();
    pmap.release(&[page], Release::Reported);
    audit(pmap);
    reader.join().unwrap();
}

/// Puts all large chunks aside, twice. Enough samples are drawn that chance, over which shuttle has
/// no say, leaves none out.
fn sample(pmap: &Arc<Pmap>) {
    let mut sampler = Sampler::new(pmap.clone(), 40).probing(4);
    for _ in 0..2 {
        sampler.begin();
        thread::yield_now();
    }
}

/// Looks for pages to share, is told of some, and has the VM leave its domain and join it again.
fn share(pmap: &Arc<Pmap>, frames: &Arc<Frames>) {
    frames.join(pmap);
    for _ in 0..5 {
        match thread_rng().gen_range(0..6) {
            0..4 => drop(pmap.scan(ScanOrder { break_large: thread_rng().gen_bool(0.5) }, Duration::ZERO)),
            4 => pmap.share(frames.name_one_for(guest::any_page()).as_slice()),
            _ if pmap.leave_frames() == Pages::ZERO => frames.join(pmap),
            _ => {}
        }
        audit(pmap);
    }
}

/// No thread waits to write any more: a shared page is a frame, and no uncounted copy.
fn nothing_shared_is_own(pmap: &Pmap) {
    for no in (0..pmap.vm().memory.layout().chunks()).map(ChunkNo) {
        if let Backing::Small(table) = &pmap.vm().chunk(no).backing {
            let shared = table.pages(|state| state.frame().is_some());
            let own = pmap.vm().memory.really_own(no, &shared).unwrap();
            assert_eq!(own, PageSet::EMPTY, "shared, and own");
        }
    }
}

fn audit(pmap: &Pmap) {
    if let Err(found) = pmap.audit() {
        panic!("audit: {}", found[0]);
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
fn check(name: &str, case: Case) {
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

/// Pages are given back, no page is taken.
const RELEASE: Case = Case { huge_pages: true, paging: false, release: true, sharing: false, mutation: None };
/// Pages are taken.
const PAGING: Case = Case { huge_pages: false, paging: true, release: false, sharing: false, mutation: None };
/// Pages are shared.
const SHARING: Case =
    Case { huge_pages: false, paging: false, release: false, sharing: true, mutation: None };

#[test]
fn giving_pages_back_keeps_content_and_account() {
    check("giving_pages_back_keeps_content_and_account", RELEASE);
}

#[test]
fn giving_single_pages_back_keeps_content_and_account() {
    check("giving_single_pages_back_keeps_content_and_account", Case { huge_pages: false, ..RELEASE });
}

#[test]
fn paging_keeps_content_and_account() {
    check("paging_keeps_content_and_account", PAGING);
    let Traffic { zipped, unzipped, swapped_out, swapped_in, zeros } = *REACHED.lock().unwrap();
    let reached = [zipped, unzipped, swapped_out, swapped_in, zeros];
    assert!(reached.iter().all(|&pages| pages > 0), "not every transition was reached: {reached:?}");
}

#[test]
fn sharing_keeps_content_and_account() {
    check("sharing_keeps_content_and_account", SHARING);
    let reached = SHARED.each_ref().map(|pages| pages.load(Ordering::Relaxed));
    assert!(reached.iter().all(|&pages| pages > 0), "not every transition was reached: {reached:?}");
}

#[test]
fn sharing_and_paging_keep_content_and_account() {
    check("sharing_and_paging_keep_content_and_account", Case { paging: true, ..SHARING });
}

#[test]
fn everything_at_once_keeps_content_and_account() {
    check(
        "everything_at_once_keeps_content_and_account",
        Case { huge_pages: true, paging: true, release: true, sharing: true, mutation: None },
    );
    assert!(PROMOTED.load(Ordering::Relaxed), "no chunk was made large again");
    // The model has too few pages to fill a store: `tests::paging` sees to that row.
    let only_there = ["Spill: from compressed", "Spill: to leaving"].map(String::from);
    assert_eq!(missing(), only_there.into(), "states in the table of transitions that never occur");
}

#[test]
fn an_execution_can_be_run_again() {
    let scheduler = UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new(200));
    run(Case { paging: true, sharing: true, ..RELEASE }, scheduler, FailurePersistence::None).unwrap();
}
