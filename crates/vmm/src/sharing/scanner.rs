//! Looks for pages that can be shared, within the daemon's budget.
//!
//! One thread does that and everything else that may take long: joining a domain, leaving one
//! (which waits for a grant, because the pages come back), and mapping frames that other VMs'
//! offers have made. The control thread only leaves its orders here.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, bail};
use plimsoll_pmap::{FramePool, Pmap, ScanOrder};
use plimsoll_protocol::sharing::{DomainId, ScanBudget, SharingKind};
use plimsoll_sys::clock::thread_processor_time;
use plimsoll_sys::lock;
use plimsoll_units::{DigestKey, FrameNo, PageNo, Pages, ReturnReason};

use super::exchange::{Exchange, HeldReferences};
use super::frames::DomainFrames;
use super::pace::Pace;
use crate::mailbox::Mailbox;

/// Processor time between two looks at the orders: as much as a few chunks whose pages are shared
/// take. With the smallest budget it comes every five seconds.
const SLICE: Duration = Duration::from_millis(5);
/// Shortest time from the end of a pass over all of memory to the next. A page that was just looked
/// at has hardly changed, and one that is written again and again is skipped for a number of
/// passes.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);
/// Frames named through other VMs' offers are mapped in batches, after this many or this long:
/// mapping neighbours together costs a third.
const GATHERED: usize = 8192;
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// Pages of grant asked for at a time to bring shared pages back. Less, and leaving a domain takes
/// many rounds; more, and that grant lies idle for a while.
const LEAVING_STEP: Pages = Pages(4096);
/// How often the scanner tries to bring shared pages back with spare grant.
const LEAVING_TICK: Duration = Duration::from_millis(250);

/// The scanner, as other threads see it.
#[derive(Clone)]
pub(crate) struct Scanner(Arc<Shared>);

struct Shared {
    pmap: Arc<Pmap>,
    exchange: Arc<Exchange>,
    mailbox: Arc<Mailbox>,
    orders: Mutex<Orders>,
    news: Condvar,
    /// The domain whose frames the pmap may have.
    active: Mutex<Option<Active>>,
    /// Pages of grant that are missing to leave a domain.
    leaving: AtomicU64,
    /// Processor time used so far, in nanoseconds.
    used: AtomicU64,
}

struct Active {
    domain: DomainId,
    pool: Arc<OwnedFd>,
    frames: Arc<DomainFrames>,
}

struct Orders {
    change: Option<Change>,
    budget: ScanBudget,
    /// Whether to look for pages. False between the order and the end of a change, and without a
    /// daemon: what was found could not be told, and would be looked for again.
    looks: bool,
    /// Frames that are held for pages of this VM.
    named: Named,
    /// The orders have changed since the thread looked at them.
    fresh: bool,
}

/// Frames that are held for pages of this VM and are not mapped yet.
#[derive(Default)]
struct Named {
    batches: Vec<(DomainId, Vec<(PageNo, FrameNo)>)>,
    pages: usize,
    since: Option<Instant>,
}

impl Named {
    fn add(&mut self, domain: DomainId, pages: Vec<(PageNo, FrameNo)>, now: Instant) {
        self.pages += pages.len();
        self.since.get_or_insert(now);
        self.batches.push((domain, pages));
    }

    /// How long it is until they are to be mapped; `None`: there are no frames.
    fn due(&self, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.since?);
        Some(if self.pages < GATHERED { GATHERED_FOR.saturating_sub(age) } else { Duration::ZERO })
    }
}

/// The domain to share in, as the daemon of connection number `connection` said.
struct Change {
    domain: SharingKind,
    fds: Vec<OwnedFd>,
    connection: u64,
}

/// What is to be done next.
enum Work {
    Change(Change),
    Share,
    Scan(ScanOrder),
}

impl Scanner {
    /// Starts the thread. It does nothing until it has orders.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        pmap: &Arc<Pmap>,
        exchange: &Arc<Exchange>,
        mailbox: &Arc<Mailbox>,
    ) -> io::Result<Self> {
        let orders = Orders {
            change: None,
            budget: ScanBudget::default(),
            looks: false,
            named: Named::default(),
            fresh: false,
        };
        let shared = Arc::new(Shared {
            pmap: Arc::clone(pmap),
            exchange: Arc::clone(exchange),
            mailbox: Arc::clone(mailbox),
            orders: Mutex::new(orders),
            news: Condvar::new(),
            active: Mutex::default(),
            leaving: AtomicU64::new(0),
            used: AtomicU64::new(0),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("scanner".to_owned()).spawn(move || own.run())?;
        Ok(Self(shared))
    }

    /// Orders what to share in, with the descriptors that came with the order.
    pub(crate) fn order(&self, domain: SharingKind, budget: ScanBudget, fds: Vec<OwnedFd>) {
        let connection = self.0.exchange.connection();
        self.change(|orders| {
            orders.change = Some(Change { domain, fds, connection });
            orders.budget = budget;
            orders.looks = false;
        });
    }

    /// Sets how much to look for.
    pub(crate) fn budget(&self, budget: ScanBudget) {
        self.change(|orders| orders.budget = budget);
    }

    /// Has frames mapped that are held for `pages`.
    pub(crate) fn named(&self, domain: DomainId, pages: Vec<(PageNo, FrameNo)>) {
        self.change(|orders| orders.named.add(domain, pages, Instant::now()));
    }

    /// Takes note that the grant has grown. What is still missing for leaving a domain is asked for
    /// anew.
    pub(crate) fn granted(&self, pages: Pages) {
        if pages > Pages::ZERO && self.0.leaving.swap(0, Ordering::Relaxed) > 0 {
            self.change(|_| {});
        }
    }

    /// The daemon has disconnected.
    pub(crate) fn daemon_lost(&self) {
        self.change(|orders| orders.looks = false);
    }

    /// What a new daemon must know of the frames that this VM has. No [permit] may be out.
    ///
    /// [permit]: super::exchange::ReferencePermit
    pub(crate) fn held_references(&self) -> Option<HeldReferences> {
        let active = lock(&self.0.active);
        let Active { domain, pool, .. } = active.as_ref()?;
        let mut holds = self.0.pmap.references();
        // The earlier daemon named them, and they may be in use soon.
        for (_, pages) in lock(&self.0.orders).named.batches.iter().filter(|(of, _)| of == domain) {
            holds.extend(pages);
        }
        Some(HeldReferences { domain: *domain, pool: Arc::clone(pool), holds })
    }

    /// Whether the scanner looks for pages that can become frames.
    pub(crate) fn shares(&self) -> bool {
        lock(&self.0.orders).looks && lock(&self.0.active).is_some()
    }

    /// Pages of grant that are missing to leave a domain.
    pub(crate) fn leaving(&self) -> Pages {
        Pages(self.0.leaving.load(Ordering::Relaxed))
    }

    /// Processor time used so far.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.0.used.load(Ordering::Relaxed))
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
        let mut pace = Pace::new(Instant::now());
        loop {
            let work = self.next(&mut pace);
            let (start, before) = (Instant::now(), thread_processor_time());
            match work {
                Work::Change(change) => self.obey(change),
                Work::Share => self.share(),
                Work::Scan(order) => {
                    let _permit = self.exchange.permit_references();
                    if self.pmap.scan(order, SLICE).pass_ended {
                        pace.rest(BETWEEN_PASSES, Instant::now());
                    }
                }
            }
            let used = thread_processor_time().saturating_sub(before);
            pace.used(used, start);
            let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
            self.used.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Waits until there is something to do.
    fn next(&self, pace: &mut Pace) -> Work {
        let mut orders = lock(&self.orders);
        loop {
            orders.fresh = false;
            if let Some(change) = orders.change.take() {
                return Work::Change(change);
            }
            let now = Instant::now();
            let due = orders.named.due(now);
            if due == Some(Duration::ZERO) {
                return Work::Share;
            }
            pace.set(orders.budget.share, now);
            let wait = pace.wait(now).filter(|_| orders.looks);
            if wait == Some(Duration::ZERO) {
                return Work::Scan(ScanOrder { break_large: orders.budget.break_large });
            }
            orders = self.rest(orders, [wait, due].into_iter().flatten().min());
        }
    }

    /// Waits for new orders, at most for `time`.
    fn rest<'a>(&self, orders: MutexGuard<'a, Orders>, time: Option<Duration>) -> MutexGuard<'a, Orders> {
        let stale = |orders: &mut Orders| !orders.fresh;
        match time {
            Some(time) => {
                self.news.wait_timeout_while(orders, time, stale).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.news.wait_while(orders, stale).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn obey(&self, Change { domain: kind, fds, connection }: Change) {
        let looks = match kind {
            SharingKind::Off => {
                self.leave();
                false
            }
            SharingKind::Zero => {
                self.leave();
                true
            }
            SharingKind::Frames { domain, limit, key } => {
                let joined = self.join(domain, limit, key, fds);
                match &joined {
                    Ok(()) => self.exchange.open(domain, connection),
                    Err(error) => self.mailbox.notice(format!("pages are not shared: {error:#}")),
                }
                joined.is_ok()
            }
        };
        let mut orders = lock(&self.orders);
        // Unless another change has been ordered, or the daemon has disconnected.
        if orders.change.is_none() && self.exchange.is_with(connection) {
            orders.looks = looks;
        }
    }

    fn join(&self, domain: DomainId, limit: Pages, key: DigestKey, fds: Vec<OwnedFd>) -> Result<()> {
        let Ok([pool, window]) = <[OwnedFd; 2]>::try_from(fds) else {
            // The daemon takes the domain of before for left.
            self.leave();
            bail!("no descriptors of frames and window have come with the domain");
        };
        if let Some(active) = &*lock(&self.active)
            && active.domain == domain
        {
            active.frames.renew(key, window)?;
            // A new daemon was told of the frames, and knows nothing of the other pages. A scan
            // that is under way, with digests of before, ends first.
            self.pmap.scan_anew();
            return Ok(());
        }
        self.leave();
        let frames = Arc::new(DomainFrames::new(domain, key, window, &self.exchange, &self.pmap)?);
        let pool = Arc::new(pool);
        let fd = pool.try_clone().context("frames")?;
        // A list of held references is made before both or after both.
        let _permit = self.exchange.permit_references();
        let source = Arc::clone(&frames);
        self.pmap.join_frames(FramePool { fd, frames: limit }, source).context("frames cannot be mapped")?;
        *lock(&self.active) = Some(Active { domain, pool, frames });
        Ok(())
    }

    /// Brings every page back from the frames, however long the grant for that takes.
    fn leave(&self) {
        if lock(&self.active).is_none() {
            return;
        }
        self.exchange.close();
        loop {
            let left = self.pmap.leave_frames();
            self.need(left.min(LEAVING_STEP));
            if left == Pages::ZERO {
                break;
            }
            let mut orders = lock(&self.orders);
            orders = self.rest(orders, Some(LEAVING_TICK));
            orders.fresh = false;
        }
        *lock(&self.active) = None;
    }

    /// Sets how many pages are missing to leave, and wakes the control thread if that is new.
    fn need(&self, pages: Pages) {
        if self.leaving.swap(pages.0, Ordering::Relaxed) != pages.0 {
            self.mailbox.wake();
        }
    }

    /// Maps frames that were named, or gives them back.
    fn share(&self) {
        // A list of held references finds them in the queue or in use.
        let _permit = self.exchange.permit_references();
        let named = std::mem::take(&mut lock(&self.orders).named);
        let ours = lock(&self.active).as_ref().map(|active| active.domain);
        let mut all = Vec::new();
        for (domain, pages) in named.batches {
            if ours == Some(domain) {
                all.extend(pages);
            } else {
                self.exchange.give_back(domain, &pages, ReturnReason::Unused);
            }
        }
        self.pmap.share(&all);
    }
}

#[cfg(test)]
mod tests;
