//! The back half of the balloon: passes what the driver's queues say to the pmap and to the
//! handles.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plimsoll_pmap::{GuestRam, Inflation, Pmap, PpnRange, Release, ReleaseOutcome};
use plimsoll_protocol::control::GuestFacts;
use plimsoll_units::{PAGE_SIZE, Pages, Ppn};

use super::super::Activation;
use super::super::back::{Back, Broken, DeviceEvent, Progress};
use super::super::interrupt::Interrupt;
use super::super::ring::{Chain, Ring, Span};
use super::{Shared, bit, statistics};

/// How often the guest is asked for statistics: as often as the VMM reports them.
const STATISTICS_PERIOD: Duration = Duration::from_secs(1);
/// Pages in one inflate or deflate request. Linux sends 256; many more would make one notification
/// long.
const MAX_PAGES: usize = 64 * 1024;
/// Without requests for this long, the guest has stopped inflating for now. Shorter, and chunks
/// that are about to be complete are broken up; longer, and the memory comes back later.
const PAUSE: Duration = Duration::from_millis(20);
/// Without requests for this long, the device checks whether the guest has stopped because it waits
/// for memory. Shorter, and a balloon that grows costs a wake-up for each request; longer, and it
/// grows more slowly.
const LOOK: Duration = Duration::from_millis(2);
/// Longest time that gathered pages wait, even if the guest never pauses.
const MAX_GATHERING: Duration = Duration::from_millis(200);

pub(super) struct BalloonBack {
    pmap: Arc<Pmap>,
    ram: GuestRam,
    shared: Arc<Shared>,
    inflation: Inflation,
    /// The guest tells before it uses a page of its balloon again. Otherwise it may do so as soon
    /// as the page is acknowledged.
    tells: bool,
    gathering: Option<Gathering>,
    active: Option<Active>,
}

/// Pages wait to be released together.
#[derive(Clone, Copy)]
struct Gathering {
    since: Instant,
    last: Instant,
    /// The guest was found since not to wait for memory.
    seen: bool,
}

struct Active {
    queues: Vec<(Role, Option<Ring>)>,
    interrupt: Interrupt,
    /// The buffer for statistics, which the device keeps until it wants new ones.
    statistics: Option<HeldBuffer>,
}

#[derive(Clone, Copy)]
struct HeldBuffer {
    head: u16,
    due: Instant,
}

/// The role of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Reporting,
}

/// The roles of the queues, in order. Queues of features that were not agreed on do not exist, and
/// those behind them move up: Linux and every device that it drives number them like this.
fn roles(features: u64) -> impl Iterator<Item = Role> {
    let statistics = (features & bit::STATS_VQ != 0).then_some(Role::Statistics);
    let reporting = (features & bit::PAGE_REPORTING != 0).then_some(Role::Reporting);
    [Role::Inflate, Role::Deflate].into_iter().chain(statistics).chain(reporting)
}

impl BalloonBack {
    pub(super) fn new(pmap: Arc<Pmap>, shared: Arc<Shared>) -> Self {
        Self {
            ram: pmap.ram().clone(),
            inflation: Inflation::new(Arc::clone(&pmap)),
            pmap,
            shared,
            tells: false,
            gathering: None,
            active: None,
        }
    }

    fn inflate(&mut self, ring: &mut Ring, interrupt: &Interrupt) -> Result<Progress, Broken> {
        let (ram, inflation, shared, tells) = (&self.ram, &mut self.inflation, &self.shared, self.tells);
        let progress = ring.serve_each(&**ram, interrupt, |chain| {
            let outcome = inflation.inflate(&pages(ram, chain)?);
            shared.count_ignored(outcome.ignored);
            if !tells {
                // Released later, a page would lose what the guest has written to it meanwhile.
                shared.count_ignored(inflation.flush().ignored);
            }
            Ok(0)
        });
        let now = Instant::now();
        let since = self.gathering.map_or(now, |gathering| gathering.since);
        self.gathering =
            (self.inflation.pending() > Pages::ZERO).then_some(Gathering { since, last: now, seen: false });
        progress
    }

    fn deflate(&mut self, ring: &mut Ring, interrupt: &Interrupt) -> Result<Progress, Broken> {
        let (ram, inflation) = (&self.ram, &mut self.inflation);
        ring.serve_each(&**ram, interrupt, |chain| {
            inflation.deflate(&pages(ram, chain)?);
            Ok(0)
        })
    }

    /// Gives reported pages back, unless the guest wants to find their content again.
    fn report(&self, ring: &mut Ring, interrupt: &Interrupt, keep_content: bool) -> Result<Progress, Broken> {
        ring.serve_each(&*self.ram, interrupt, |chain| {
            if !keep_content {
                let ranges: Vec<_> = chain.writable.iter().filter_map(whole_pages).collect();
                self.count(self.pmap.release(&ranges, Release::Reported));
            }
            Ok(0)
        })
    }

    /// Reads the statistics that came, and keeps the last buffer until new statistics are wanted.
    fn take_statistics(
        &self,
        ring: &mut Ring,
        held: &mut Option<HeldBuffer>,
        interrupt: &Interrupt,
    ) -> Result<Progress, Broken> {
        for _ in 0..ring.size() {
            let Some(chain) = ring.pop(&*self.ram)? else { break };
            let mut buffer = [0; statistics::MAX_LENGTH];
            let length = chain.readable.read(&*self.ram, &mut buffer)?;
            // Some versions of Linux queue an empty buffer at first. Missing values are not zeros.
            if length > 0 {
                let ballooned = self.pmap.stats().ballooned;
                let said = statistics::parse(&buffer[..length]);
                *self.shared.guest() = Some(GuestFacts { ballooned, ..said });
            }
            let buffer = HeldBuffer { head: chain.head, due: Instant::now() + STATISTICS_PERIOD };
            if let Some(older) = held.replace(buffer) {
                ring.push(&*self.ram, &[(older.head, 0)])?;
            }
        }
        ring.notify(&*self.ram, interrupt)?;
        Ok(if ring.rearm(&*self.ram)? { Progress::More } else { Progress::Done })
    }

    fn flush(&mut self) {
        self.gathering = None;
        let outcome = self.inflation.flush();
        self.count(outcome);
    }

    fn count(&self, outcome: ReleaseOutcome) {
        self.shared.count_ignored(outcome.ignored);
    }

    fn serve_queue(&mut self, active: &mut Active, index: usize) -> Result<Progress, Broken> {
        let Active { queues, interrupt, statistics } = active;
        let Some((role, Some(ring))) = queues.get_mut(index) else { return Ok(Progress::Done) };
        match role {
            Role::Inflate => self.inflate(ring, interrupt),
            Role::Deflate => self.deflate(ring, interrupt),
            Role::Statistics => self.take_statistics(ring, statistics, interrupt),
            Role::Reporting => {
                let keep = self.shared.poison.load(Ordering::SeqCst) != 0;
                self.report(ring, interrupt, keep)
            }
        }
    }

    fn serve_deadline(&mut self, active: &mut Active) -> Result<Progress, Broken> {
        let now = Instant::now();
        if let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.due() <= now) {
            let waits = self.pmap.stats().wanted > Pages::ZERO;
            if waits || gathering.seen {
                // What is released serves the guest's faults.
                self.flush();
            } else {
                gathering.seen = true;
            }
        }
        let Active { queues, interrupt, statistics } = active;
        if let Some(held) = statistics.take_if(|held| held.due <= now)
            && let Some((_, Some(ring))) = queues.iter_mut().find(|(role, _)| *role == Role::Statistics)
        {
            ring.push(&*self.ram, &[(held.head, 0)])?;
            ring.notify(&*self.ram, interrupt)?;
        }
        Ok(Progress::Done)
    }
}

impl Gathering {
    fn due(self) -> Instant {
        let pause = if self.seen { PAUSE } else { LOOK };
        (self.last + pause).min(self.since + MAX_GATHERING)
    }
}

/// The page numbers of an inflate or deflate request.
fn pages(ram: &GuestRam, chain: &Chain) -> Result<Vec<Ppn>, Broken> {
    let bytes = usize::try_from(chain.readable.len()).map_err(|_| Broken::Layout)?;
    if bytes > 4 * MAX_PAGES {
        return Err(Broken::Layout);
    }
    let mut numbers = vec![0; bytes];
    chain.readable.read(&**ram, &mut numbers)?;
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
    Ok(numbers.chunks_exact(4).map(|bytes| Ppn(number(bytes).into())).collect())
}

/// The whole pages in a buffer.
fn whole_pages(span: Span) -> Option<PpnRange> {
    // Cannot overflow: the buffer was found to lie within guest memory.
    let first = span.address.0.div_ceil(PAGE_SIZE);
    let end = (span.address.0 + u64::from(span.len)) / PAGE_SIZE;
    (first < end).then(|| PpnRange::new(Ppn(first), Pages(end - first)))
}

impl Back for BalloonBack {
    fn start(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let queues = (0..).zip(roles(activation.features)).zip(activation.queues.iter_mut());
        let queues: Result<_, Broken> = queues
            .map(|((number, role), queue)| {
                let ring = queue.take().map(|queue| Ring::new(number, queue, &*self.ram)).transpose()?;
                Ok((role, ring))
            })
            .collect();
        self.tells = activation.features & bit::MUST_TELL_HOST != 0;
        self.active = Some(Active { queues: queues?, interrupt: activation.interrupt, statistics: None });
        Ok(())
    }

    fn serve(&mut self, event: DeviceEvent) -> Result<Progress, Broken> {
        let Some(mut active) = self.active.take() else { return Ok(Progress::Done) };
        let result = match event {
            DeviceEvent::Kick(index) => self.serve_queue(&mut active, index),
            _ => self.serve_deadline(&mut active),
        };
        self.active = Some(active);
        result
    }

    fn stop(&mut self) {
        self.active = None;
        self.gathering = None;
        self.inflation.clear();
    }

    fn deadline(&self) -> Option<Instant> {
        let statistics = self.active.as_ref().and_then(|active| active.statistics).map(|held| held.due);
        let gathering = self.gathering.map(Gathering::due);
        statistics.into_iter().chain(gathering).min()
    }
}
