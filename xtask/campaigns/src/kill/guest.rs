//! A guest at work: a thread that has its model guest write, and verify what it wrote before.
//!
//! Each round of writing gives every page of a region the content of the next generation, and each
//! page is verified before the round after it: a write that is lost, done twice or undone shows as
//! a page of another generation. That is a counter in every page.

use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use plimsoll_operate::toucher::Toucher;
use plimsoll_units::Bytes;

/// How long a guest may take for one command. A VM whose daemon is gone may wait for memory for as
/// long as a point's pause; only a VM that nothing serves takes this long.
const LIMIT: Duration = Duration::from_secs(240);
/// The pause between two commands. Without one, guests would take all processors from the daemon.
const BREATH: Duration = Duration::from_millis(10);

/// The same in all guests: pages that VMs of one domain can share.
const ALIKE: Region = Region { seed: 1, size: Bytes::mib(4) };
/// Turned to zeros now and then: pages that need no memory.
const BLANK: Region = Region { seed: 2, size: Bytes::mib(2) };
/// Pages that shrink.
const THIN: Region = Region { seed: 3, size: Bytes::mib(4) };
/// Freed and touched anew: memory that is reported free, and that balloons take.
const FLEETING: Region = Region { seed: 4, size: Bytes::mib(4) };
/// The counters: their seed is the generation, from here on.
const COUNTERS: Region = Region { seed: 1 << 32, size: Bytes::mib(8) };
/// Page cache, which guests drop where a balloon wants it.
const CACHE: Bytes = Bytes::mib(2);

/// What a guest has when it rests.
const ALL: Bytes = Bytes(ALIKE.size.0 + BLANK.size.0 + THIN.size.0 + FLEETING.size.0 + COUNTERS.size.0);

#[derive(Clone, Copy, Debug)]
struct Region {
    seed: u64,
    size: Bytes,
}

/// A page did not hold what its guest wrote: the error that nothing excuses.
#[derive(Debug)]
pub(super) struct WrongContent(String);

impl fmt::Display for WrongContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page is not what its guest wrote: {}", self.0)
    }
}

impl std::error::Error for WrongContent {}

#[derive(Debug)]
enum Order {
    /// Verify everything, say how many rounds of counting there were, and do nothing more.
    Rest(Sender<u64>),
    /// Go on.
    Work,
}

/// A guest at work. Dropped, it stops after its present command.
#[derive(Debug)]
pub(super) struct Guest {
    orders: Sender<Order>,
    thread: JoinHandle<Result<()>>,
}

impl Guest {
    /// Has the guest behind `toucher` work, as `random` decides.
    pub(super) fn start(toucher: Toucher, random: Rng) -> Self {
        let (orders, received) = mpsc::channel();
        let thread =
            thread::spawn(move || Work { toucher, random, generation: COUNTERS.seed }.run(&received));
        Self { orders, thread }
    }

    /// Tells it to verify all and to rest. [`Rest::wait`] returns once it does.
    pub(super) fn rest(&self) -> Rest {
        let (done, rests) = mpsc::channel();
        // A guest that has ended says so when it is waited for.
        self.orders.send(Order::Rest(done)).ok();
        Rest(rests)
    }

    /// Tells it to go on.
    pub(super) fn work(&self) {
        self.orders.send(Order::Work).ok();
    }

    /// Ends it and returns how it fared.
    pub(super) fn end(self) -> Result<()> {
        drop(self.orders);
        self.thread.join().map_err(|_| anyhow!("the thread of a guest panicked"))?
    }
}

/// A guest that is about to rest.
pub(super) struct Rest(Receiver<u64>);

impl Rest {
    /// Waits until it rests, everything verified, at most until `deadline`. Returns the rounds of
    /// counting so far; `None`: it has ended.
    pub(super) fn wait(&self, deadline: Instant) -> Result<Option<u64>> {
        match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(rounds) => Ok(Some(rounds)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(anyhow!("the guest does not come to rest")),
        }
    }
}

struct Work {
    toucher: Toucher,
    random: Rng,
    /// The seed of the counters.
    generation: u64,
}

impl Work {
    fn run(mut self, orders: &Receiver<Order>) -> Result<()> {
        for region in [ALIKE, BLANK, THIN, FLEETING, COUNTERS] {
            self.touch(region)?;
        }
        let mut resting = false;
        loop {
            let order = if resting {
                orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                orders.try_recv()
            };
            match order {
                Ok(Order::Work) => resting = false,
                Ok(Order::Rest(done)) => {
                    self.verify(None, ALL)?;
                    done.send(self.generation - COUNTERS.seed).ok();
                    resting = true;
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    self.step()?;
                    thread::sleep(BREATH);
                }
            }
        }
    }

    /// One thing that a guest does.
    fn step(&mut self) -> Result<()> {
        match self.random.u8(..10) {
            0 => self.again("rewrite", ALIKE),
            1 => self.again("clear", BLANK),
            2 => self.again("rewrite", BLANK),
            3 => self.again("thin", THIN),
            4 => {
                self.ask(&format!("free {}", FLEETING.seed))?;
                self.touch(FLEETING)
            }
            5 => self.ask(&format!("cache {}", CACHE.0)),
            _ => self.count(),
        }
    }

    /// Every counter goes up by one.
    fn count(&mut self) -> Result<()> {
        self.verify(Some(self.generation), COUNTERS.size)?;
        self.ask(&format!("turn {} {}", self.generation, self.generation + 1))?;
        self.generation += 1;
        Ok(())
    }

    /// Verifies a region, and writes it anew.
    fn again(&mut self, verb: &str, region: Region) -> Result<()> {
        self.verify(Some(region.seed), region.size)?;
        self.ask(&format!("{verb} {}", region.seed))
    }

    fn touch(&mut self, region: Region) -> Result<()> {
        self.ask(&format!("touch {} {}", region.size.0, region.seed))
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        self.toucher.ask(command, LIMIT).map(drop)
    }

    fn verify(&mut self, seed: Option<u64>, size: Bytes) -> Result<()> {
        let command = seed.map_or_else(|| "verify".to_owned(), |seed| format!("verify {seed}"));
        let answer = self.toucher.ask(&command, LIMIT)?;
        let (bytes, mismatched) = (answer.number("bytes")?, answer.number("mismatched")?);
        if mismatched > 0 {
            return Err(WrongContent(answer.text().to_owned()).into());
        }
        ensure!(bytes == size.0, "a guest verified {bytes} bytes and not {size}: {}", answer.text());
        Ok(())
    }
}

/// Returns the error of a guest whose VM ended as it should, if that is no excuse for it.
pub(super) fn inexcusable(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.downcast_ref::<WrongContent>().is_some() => {
            Err(error).context("before its VM ended")
        }
        _ => Ok(()),
    }
}
