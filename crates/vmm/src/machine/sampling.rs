use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use plimsoll_pmap::{Pmap, Sampler, Seen};
use plimsoll_protocol::control::{self, SampleFacts, Sampled, SamplingConfig, SamplingFacts};
use plimsoll_sys::lock;
use plimsoll_units::Pages;

use crate::brake::Brake;
use crate::vcpu::Execution;

const _: () = assert!(control::MAX_SAMPLES as usize <= plimsoll_pmap::MAX_SAMPLES);

/// Large chunks a period that are looked into. More would break more huge pages for a figure that
/// changes little from one period to the next; with fewer, it is known too late.
const PROBES: u32 = 4;

/// How often time is counted: often enough that a wait of a second stands out in the shortest
/// period.
const TICK: Duration = Duration::from_millis(250);

/// The periods of sampling. They are counted in time that the VM executes (Waldspurger 2002,
/// section 5.3): while it waits for memory or for a processor it touches nothing, and would seem
/// idle for that.
pub(super) struct Sampling(Mutex<Periods>);

struct Periods {
    sampler: Sampler,
    length: Duration,
    number: u64,
    /// In the period under way.
    elapsed: Duration,
    /// In all.
    executed: Duration,
    last: SampleFacts,
}

impl Sampling {
    /// Samples the VM's memory for as long as the process lives, on a thread of its own.
    pub(super) fn start(
        pmap: &Arc<Pmap>,
        brake: &Arc<Brake>,
        execution: &Arc<Execution>,
        config: SamplingConfig,
    ) -> io::Result<Arc<Self>> {
        let sampler = Sampler::new(Arc::clone(pmap), config.samples).probing(PROBES);
        let sampling = Arc::new(Self(Mutex::new(Periods::new(sampler, config.period))));
        let (pmap, brake) = (Arc::clone(pmap), Arc::clone(brake));
        let (execution, periods) = (Arc::clone(execution), Arc::clone(&sampling));
        thread::Builder::new().name("sampler".to_owned()).spawn(move || {
            let mut before = Instant::now();
            loop {
                thread::sleep(TICK);
                let now = Instant::now();
                // A process that was stopped has not run for all that time.
                let elapsed = now.saturating_duration_since(before).min(4 * TICK);
                before = now;
                let executed = execution.lap(elapsed);
                // Devices wait for memory, too, and so do models, which have no processors.
                if pmap.stats().wanted == Pages::ZERO && !brake.is_on() {
                    lock(&periods.0).advance(executed);
                }
            }
        })?;
        Ok(sampling)
    }

    pub(super) fn facts(&self) -> SamplingFacts {
        lock(&self.0).facts()
    }
}

impl Periods {
    fn new(sampler: Sampler, length: Duration) -> Self {
        Self {
            sampler,
            length,
            number: 0,
            elapsed: Duration::ZERO,
            executed: Duration::ZERO,
            last: SampleFacts::default(),
        }
    }

    /// The VM has executed for this long.
    fn advance(&mut self, executed: Duration) {
        self.elapsed += executed;
        self.executed += executed;
        if self.number > 0 && self.elapsed < self.length {
            return;
        }
        if self.number > 0 {
            self.sampler.end();
            self.last = self.now();
        }
        self.sampler.begin();
        self.number += 1;
        self.elapsed = Duration::ZERO;
    }

    fn now(&self) -> SampleFacts {
        let Seen { chunks, pages, inside, arrived } = self.sampler.seen();
        let sampled = |seen: plimsoll_pmap::Sampled| Sampled {
            population: seen.population,
            sampled: seen.sampled,
            touched: seen.touched,
        };
        SampleFacts {
            elapsed: self.elapsed,
            chunks: sampled(chunks),
            pages: sampled(pages),
            inside: sampled(inside),
            arrived,
        }
    }

    fn facts(&self) -> SamplingFacts {
        SamplingFacts { executed: self.executed, period: self.number, now: self.now(), last: self.last }
    }
}
