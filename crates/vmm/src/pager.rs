//! Compresses and swaps out pages of the VM when the daemon says so, and makes chunks large again
//! when it does not.
//!
//! One thread does it, which may wait for the disk. The daemon names a level ([`ToVmm::Paging`]);
//! what is held beyond it, or waited for, is paged out, a little at a time. What that frees serves
//! the VM's own faults first, and the rest of the grant goes back by the way that it always takes.
//! Without a daemon the VM keeps what it has and serves its faults from that.
//!
//! [`ToVmm::Paging`]: plimsoll_protocol::control::ToVmm::Paging

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use plimsoll_pmap::{Pmap, Stats};
use plimsoll_sys::lock;
use plimsoll_units::Pages;

use crate::brake::Brake;
use crate::sharing::Exchange;

/// Taken before orders are looked at again. Less, and each page costs a look; more, and an order
/// that has changed is obeyed late.
const STEP: Pages = Pages::CHUNK;
/// How often it is looked whether more is held than the level allows: a guest comes to that by
/// itself only within its grant.
const TICK: Duration = Duration::from_secs(1);
/// How long paging rests at first when nothing could be taken. Device I/O ends meanwhile, and pages
/// that were in use may be so no more.
const SHORTEST_REST: Duration = Duration::from_secs(1);
/// The longest rest. Each try packs up to 128 MiB in vain: more often, and VMs that cannot page
/// take processors from those that run; less often, and pages that have fallen idle stay for too
/// long.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Pages that a VM has got since nothing could be taken, which end a rest whatever its size. Fewer,
/// and a large VM that takes memory in fast keeps a processor busy with tries; more, and it swaps
/// nothing out for up to a minute though much has come that could be.
const NEW: Pages = Pages(64 * Pages::CHUNK.0);
/// Quiet for so long, pressure has passed. Less, and chunks are made large to be broken up again.
const QUIET: Duration = Duration::from_secs(10);
/// Chunks made large in a tick: each is a copy of up to 2 MiB.
const PROMOTED: usize = 8;

/// The pager, as other threads see it.
#[derive(Clone)]
pub(crate) struct Pager(Arc<Shared>);

struct Shared {
    pmap: Arc<Pmap>,
    brake: Arc<Brake>,
    exchange: Arc<Exchange>,
    orders: Mutex<Orders>,
    news: Condvar,
    stuck: AtomicBool,
    /// Chunks that were broken up stay so.
    small: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    level: Option<Pages>,
    block: bool,
    /// Something has changed since they were looked at.
    fresh: bool,
}

impl Orders {
    /// What is to be paged out of a VM with these figures.
    fn excess(&self, stats: &Stats) -> Pages {
        let Some(level) = self.level else { return Pages::ZERO };
        let needed = if stats.wanted > Pages::ZERO { stats.grant + stats.wanted } else { stats.held };
        needed.saturating_sub(level)
    }
}

/// On what it depends whether anything can be taken. The level is not part of it: what could not be
/// taken for one level cannot be taken for another. The daemon raises the level of a VM that is
/// stuck, and lowers it again when the VM is not; each change would be a reason to try.
#[derive(Clone, Copy, Debug)]
struct Situation {
    block: bool,
    held: Pages,
}

impl Situation {
    /// Whether a try that was in vain `before` would be so now. A VM that waits gets a chunk now
    /// and then. A try for each would take a processor from VMs that run, so it has to hold an
    /// eighth more, or [`NEW`], before there is enough that has not been tried.
    fn is_like(&self, before: &Self) -> bool {
        let new = Pages(before.held.0 / 8).clamp(Pages::CHUNK, NEW);
        self.block == before.block && self.held < before.held.saturating_add(new)
    }
}

/// A rest after nothing could be taken.
#[derive(Clone, Copy, Debug)]
struct Rest {
    situation: Situation,
    length: Duration,
    until: Instant,
}

/// What the pager does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing is asked for. What was last asked for could not be taken where it is `stuck`.
    Nothing { stuck: bool },
    /// Nothing can be taken for that long.
    Rest(Duration),
    /// Take pages.
    Try,
}

/// Tries to take pages, of which the last ones may have failed.
#[derive(Debug, Default)]
struct Tries {
    rest: Option<Rest>,
}

impl Tries {
    /// Returns how long to rest from now on. Failures in another situation are forgotten.
    fn left(&mut self, situation: Situation, now: Instant) -> Option<Duration> {
        self.rest = self.rest.filter(|rest| situation.is_like(&rest.situation));
        self.rest.and_then(|rest| rest.left(now))
    }

    /// Returns what to do where `excess` is to be paged out.
    fn next(&mut self, excess: Pages, situation: Situation, now: Instant) -> Next {
        match (excess > Pages::ZERO, self.left(situation, now)) {
            // A daemon that asks for nothing because nothing can be taken is not told that all is
            // well.
            (false, left) => Next::Nothing { stuck: left.is_some() },
            (true, Some(left)) => Next::Rest(left),
            (true, None) => Next::Try,
        }
    }

    /// A try in `situation` has ended.
    fn ended(&mut self, failed: bool, situation: Situation, now: Instant) {
        self.rest = failed.then(|| Rest::after(self.rest, situation, now));
    }
}

impl Rest {
    /// Returns the rest after nothing could be taken in `situation`: twice as long as the one
    /// `before` it where nothing has changed since.
    fn after(before: Option<Self>, situation: Situation, now: Instant) -> Self {
        let same = before.filter(|before| situation.is_like(&before.situation));
        let length = same.map_or(SHORTEST_REST, |before| (before.length * 2).min(LONGEST_REST));
        Self { situation, length, until: now + length }
    }

    /// Returns how long it still lasts.
    fn left(&self, now: Instant) -> Option<Duration> {
        Some(self.until.saturating_duration_since(now)).filter(|left| *left > Duration::ZERO)
    }
}

impl Pager {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(pmap: &Arc<Pmap>, brake: &Arc<Brake>, exchange: &Arc<Exchange>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            pmap: Arc::clone(pmap),
            brake: Arc::clone(brake),
            exchange: Arc::clone(exchange),
            orders: Mutex::default(),
            news: Condvar::new(),
            stuck: AtomicBool::new(false),
            small: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("pager".to_owned()).spawn(move || own.run())?;
        Ok(Self(shared))
    }

    /// The daemon's orders.
    pub(crate) fn order(&self, level: Option<Pages>, block: bool) {
        self.change(|orders| (orders.level, orders.block) = (level, block));
    }

    /// The grant has grown, and the level with it.
    pub(crate) fn granted(&self, pages: Pages) {
        self.change(|orders| orders.level = orders.level.map(|level| level.saturating_add(pages)));
    }

    /// There is no daemon: the VM makes do with its `grant`.
    pub(crate) fn daemon_lost(&self, grant: Pages) {
        self.order(Some(grant), false);
    }

    /// Faults wait for more, or less, than before.
    pub(crate) fn waits(&self) {
        self.change(|_| {});
    }

    /// How much of what is not used the VM may keep for its next faults, at most `most`.
    pub(crate) fn keeps(&self, most: Pages, held: Pages) -> Pages {
        lock(&self.0.orders).level.map_or(most, |level| most.min(level.saturating_sub(held)))
    }

    /// Whether chunks are broken up for pages that can be shared: then they are not made large
    /// again, which would end that.
    pub(crate) fn keep_small(&self, small: bool) {
        self.0.small.store(small, Ordering::Relaxed);
    }

    /// What was last asked for could not be taken.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.stuck.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = lock(&self.0.orders);
        change(&mut orders);
        orders.fresh = true;
        self.0.news.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let mut busy = Instant::now();
        let mut tries = Tries::default();
        loop {
            let orders = self.take_orders();
            let stats = self.pmap.stats();
            let excess = orders.excess(&stats);
            let situation = Situation { block: orders.block, held: stats.held };
            match tries.next(excess, situation, Instant::now()) {
                Next::Nothing { stuck } => {
                    self.release();
                    self.stuck.store(stuck, Ordering::Relaxed);
                    let quiet = busy.elapsed() >= QUIET && !stuck;
                    if quiet && !self.small.load(Ordering::Relaxed) {
                        self.pmap.promote(PROMOTED);
                    }
                    self.rest(TICK);
                    continue;
                }
                Next::Rest(left) => {
                    busy = Instant::now();
                    self.rest(left.min(TICK));
                    continue;
                }
                Next::Try => busy = Instant::now(),
            }
            if orders.block {
                self.hold();
            } else {
                self.release();
            }
            let out = {
                // Pages are shared rather than paged out where they can be.
                let _permit = self.exchange.permit_references();
                self.pmap.page_out(excess.min(STEP))
            };
            let stuck = out.freed == Pages::ZERO;
            self.stuck.store(stuck, Ordering::Relaxed);
            if stuck {
                // It would stand still for nothing.
                self.release();
            }
            tries.ended(stuck, situation, Instant::now());
        }
    }

    fn take_orders(&self) -> Orders {
        let mut orders = lock(&self.orders);
        orders.fresh = false;
        *orders
    }

    /// Has the VM's processors stand still.
    fn hold(&self) {
        self.pmap.note_held(true);
        self.brake.hold();
    }

    /// Lets the VM's processors go on.
    fn release(&self) {
        self.pmap.note_held(false);
        self.brake.release();
    }

    /// Waits for news, or that long.
    fn rest(&self, time: Duration) {
        let orders = lock(&self.orders);
        let waited = self.news.wait_timeout_while(orders, time, |orders| !orders.fresh);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_what_is_waited_for() {
        let stats = |held, grant, wanted| Stats {
            held: Pages(held),
            grant: Pages(grant),
            wanted: Pages(wanted),
            ..Stats::default()
        };
        let orders = |level| Orders { level: Some(Pages(level)), ..Orders::default() };
        assert_eq!(orders(100).excess(&stats(100, 200, 0)), Pages(0));
        assert_eq!(orders(100).excess(&stats(150, 200, 0)), Pages(50));
        assert_eq!(orders(200).excess(&stats(190, 200, 7)), Pages(7), "it serves its own faults");
        assert_eq!(orders(100).excess(&stats(190, 200, 7)), Pages(107));
        assert_eq!(Orders::default().excess(&stats(190, 200, 7)), Pages(0));
    }

    const SITUATION: Situation = Situation { block: false, held: Pages(100) };

    #[test]
    fn rests_double_up_to_a_minute_while_nothing_changes() {
        let mut now = Instant::now();
        let mut tries = Tries::default();
        let mut lengths = Vec::new();
        for _ in 0..8 {
            assert_eq!(tries.left(SITUATION, now), None);
            tries.ended(true, SITUATION, now);
            let length = tries.left(SITUATION, now).unwrap();
            lengths.push(length.as_secs());
            now += length;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_daemon_that_asks_nothing_of_a_stuck_vm_sets_off_no_tries() {
        let (begin, mut tries) = (Instant::now(), Tries::default());
        let (mut stuck, mut tried) = (false, 0);
        for second in 0..180 {
            let now = begin + Duration::from_secs(second);
            let asked = if stuck { Pages::ZERO } else { Pages(100) };
            match tries.next(asked, SITUATION, now) {
                Next::Nothing { stuck: still } => stuck = still,
                Next::Rest(_) => stuck = true,
                Next::Try => {
                    tried += 1;
                    stuck = true;
                    tries.ended(true, SITUATION, now);
                }
            }
        }
        assert!((6..=8).contains(&tried), "{tried} tries in three minutes");
    }

    #[test]
    fn a_little_more_or_less_is_no_other_situation() {
        let holds = |held| Situation { block: false, held: Pages(held) };
        let like = |before, now| holds(now).is_like(&holds(before));
        assert!(like(100, 0) && like(100, 611) && !like(100, 612), "a chunk");
        assert!(like(80_000, 89_999) && !like(80_000, 90_000), "an eighth");
        assert!(like(8_000_000, 8_032_767) && !like(8_000_000, 8_032_768), "128 MiB");
    }

    #[test]
    fn another_situation_and_a_try_that_takes_something_end_a_rest() {
        let now = Instant::now();
        for changed in [Situation { block: true, ..SITUATION }, Situation { held: Pages(612), ..SITUATION }] {
            let mut tries = Tries::default();
            tries.ended(true, SITUATION, now);
            assert_eq!(tries.left(changed, now), None, "{changed:?} is obeyed at once");
            tries.ended(true, changed, now);
            assert_eq!(tries.left(changed, now), Some(SHORTEST_REST));
            tries.ended(false, changed, now);
            assert_eq!(tries.left(changed, now), None);
        }
    }
}
