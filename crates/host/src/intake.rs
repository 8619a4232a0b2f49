//! How fast messages of VMMs are taken.
//!
//! Tasks that read and the daemon's loop share one thread, and each message takes some of it. So
//! VMMs that send much share a part of the thread's time: [`RATE_OF_ALL`]. A VMM that sends little
//! is always read at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::windowed::Windowed;

/// Most messages of one VMM within [`WINDOW`]: a VM that touches new memory as fast as it can sends
/// one for every 2 MiB chunk, some 5000 a second. Above it the VMM's socket fills and its sender
/// waits.
const RATE: u32 = 1000;
/// Most messages within [`WINDOW`] of all VMMs that send many, in equal parts: with some 10 us each
/// a third of the thread. More, and hostile VMMs have others wait for their answers; less, and a
/// host whose VMs come up at once serves them late.
const RATE_OF_ALL: u32 = 3000;
/// Messages within [`WINDOW`] that a VMM may always send, and with which it does not count as one
/// that sends many: an honest VMM that is not short of memory sends some ten a second.
const FEW: u32 = 8;
/// See [`RATE`].
const WINDOW: Duration = Duration::from_millis(100);

/// The VMMs that send many messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talkers(Arc<Mutex<Windowed<u32>>>);

impl Talkers {
    /// Notes that one more VMM sends many messages at `now`. Returns how many each may send within
    /// [`WINDOW`].
    fn part(&self, now: Instant, joins: bool) -> u32 {
        let mut count = plimsoll_sys::lock(&self.0);
        count.advance(now.into_std(), WINDOW);
        count.now += u32::from(joins);
        (RATE_OF_ALL / count.now.max(count.before).max(1)).clamp(FEW, RATE)
    }
}

/// How fast messages of one VMM are taken.
#[derive(Debug)]
pub(crate) struct Intake {
    talkers: Talkers,
    window: Instant,
    taken: u32,
}

impl Intake {
    pub(crate) fn new(talkers: Talkers) -> Self {
        Self { talkers, window: Instant::now(), taken: 0 }
    }

    /// Waits until the next message may be taken.
    pub(crate) async fn wait(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.window) >= WINDOW {
            (self.window, self.taken) = (now, 0);
        }
        self.taken += 1;
        if self.taken > FEW && self.taken > self.talkers.part(now, self.taken == FEW + 1) {
            tokio::time::sleep_until(self.window + WINDOW).await;
            (self.window, self.taken) = (Instant::now(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_taken_at_a_bounded_rate() {
        let mut intake = Intake::new(Talkers::default());
        let begin = Instant::now();
        for _ in 0..10 * RATE {
            intake.wait().await;
        }
        assert!(begin.elapsed() >= 9 * WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_flood_are_taken_no_faster_than_a_few_and_the_quiet_at_once() {
        let talkers = Talkers::default();
        let taken = |vms: u32| {
            let talkers = talkers.clone();
            async move {
                let floods: Vec<_> = (0..vms)
                    .map(|_| {
                        let mut intake = Intake::new(talkers.clone());
                        tokio::spawn(async move {
                            let end = Instant::now() + 100 * WINDOW;
                            let mut taken = 0;
                            while Instant::now() < end {
                                intake.wait().await;
                                taken += 1;
                                tokio::task::yield_now().await;
                            }
                            taken
                        })
                    })
                    .collect();
                let mut all = Vec::new();
                for flood in floods {
                    all.push(flood.await.unwrap());
                }
                all
            }
        };
        for vms in [3, 10, 300] {
            let all: Vec<u32> = taken(vms).await;
            let sum: u32 = all.iter().sum();
            assert!(sum <= 110 * RATE_OF_ALL, "{vms} VMMs: {sum}");
            let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
            assert!(least > 0 && most <= 2 * least + RATE, "{vms} VMMs: {least} to {most}");
        }
        let begin = Instant::now();
        let mut quiet = Intake::new(talkers);
        for _ in 0..FEW {
            quiet.wait().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
