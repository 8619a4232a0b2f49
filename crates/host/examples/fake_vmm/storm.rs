use std::time::Duration;

use plimsoll_protocol::control::{Chunks, Facts, FromVmm, GuestFacts, SampleFacts, Sampled, SamplingFacts};
use plimsoll_protocol::sharing::{DomainId, MAX_BATCH};
use plimsoll_units::{Bytes, DigestKey, FrameNo, PageDigest, PageNo, Pages};

/// Messages of every kind that the daemon may get at any time, in any order, with any numbers. The
/// same name makes the same storm.
pub(crate) struct Storm {
    random: fastrand::Rng,
    domain: DomainId,
    facts: Facts,
    /// Digests of honest VMs' pages.
    theirs: Vec<PageDigest>,
    last: Option<FromVmm>,
}

impl Storm {
    pub(crate) fn new(name: &str, domain: DomainId, key: &DigestKey, facts: Facts) -> Self {
        let seed = name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let theirs = crate::sharer::all_digests(key);
        Self { random: fastrand::Rng::with_seed(seed), domain, facts, theirs, last: None }
    }

    /// The next message. Some are doubled. None is a breach of the protocol by itself.
    pub(crate) fn message(&mut self) -> FromVmm {
        if let Some(last) = self.last.take()
            && self.random.u8(..) < 64
        {
            return last;
        }
        let message = match self.random.u8(..16) {
            0..3 => FromVmm::Want(self.pages()),
            3 => FromVmm::Return(Pages(0)),
            4..7 => FromVmm::Report(self.report()),
            7 => FromVmm::Running { missing_jail: Vec::new() },
            8 => FromVmm::Rebooted,
            9 => FromVmm::Notice("\u{1b}[2J\n".repeat(self.random.usize(..2000))),
            10..13 => {
                FromVmm::LookUp { domain: self.domain(), id: self.random.u32(..), pages: self.digests() }
            }
            13 => {
                // Its window shows nothing of that.
                let pages = self.digests();
                let pages = pages.into_iter().take(self.random.usize(..=2)).collect();
                FromVmm::Offer { domain: self.domain(), id: self.random.u32(..), pages }
            }
            // To no question.
            14 => FromVmm::Resized { disk: self.random.u8(..40), outcome: Ok(Bytes(self.number())) },
            _ => FromVmm::GiveBack {
                domain: self.domain(),
                pages: self.frames(),
                mismatched: self.random.bool(),
            },
        };
        self.last = Some(message.clone());
        message
    }

    fn number(&mut self) -> u64 {
        match self.random.u8(..8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX / 2 + 1,
            3 => u64::MAX - self.random.u64(..4096),
            4 => self.random.u64(..),
            _ => self.random.u64(..70_000),
        }
    }

    fn pages(&mut self) -> Pages {
        Pages(self.number())
    }

    fn time(&mut self) -> Duration {
        if self.random.bool() { Duration::MAX } else { Duration::from_nanos(self.number()) }
    }

    /// Its own domain, the numbers beside it, and domains that do not exist.
    fn domain(&mut self) -> DomainId {
        let DomainId(own) = self.domain;
        DomainId(match self.random.u8(..6) {
            0 => own.wrapping_add(1),
            1 => own.wrapping_sub(1),
            2 => self.number(),
            _ => own,
        })
    }

    /// Pages of its own, and such that no VM has.
    fn page(&mut self) -> PageNo {
        PageNo(if self.random.u8(..8) == 0 { self.random.u32(..) } else { self.random.u32(..64) })
    }

    /// Digests of honest VMs among them.
    fn digests(&mut self) -> Vec<(PageNo, PageDigest)> {
        let count = self.random.usize(..=MAX_BATCH);
        (0..count)
            .map(|_| {
                let digest = match self.random.bool() {
                    true => self.theirs[self.random.usize(..self.theirs.len())],
                    false => PageDigest(self.number().into()),
                };
                (self.page(), digest)
            })
            .collect()
    }

    /// Frames of others, and frames that do not exist.
    fn frames(&mut self) -> Vec<(PageNo, FrameNo)> {
        let count = self.random.usize(..=MAX_BATCH);
        (0..count)
            .map(|_| {
                let frame = if self.random.u8(..8) == 0 { u32::MAX } else { self.random.u32(..128) };
                (self.page(), FrameNo(frame))
            })
            .collect()
    }

    fn sample(&mut self) -> SampleFacts {
        SampleFacts {
            elapsed: self.time(),
            chunks: self.sampled(),
            pages: self.sampled(),
            inside: self.sampled(),
            arrived: self.pages(),
        }
    }

    fn sampled(&mut self) -> Sampled {
        Sampled { population: self.number(), sampled: self.number(), touched: self.number() }
    }

    fn report(&mut self) -> Facts {
        let guest = GuestFacts {
            total: Bytes(self.number()),
            free: Bytes(self.number()),
            available: Bytes(self.number()),
            cache: Bytes(self.number()),
            major_faults: self.number(),
            oom_kills: self.number(),
            ballooned: self.pages(),
            swap_in: Some(Bytes(self.number())),
            swap_out: Some(Bytes(self.number())),
            alloc_stalls: Some(self.number()),
            direct_scans: Some(Bytes(self.number())),
            direct_reclaims: Some(Bytes(self.number())),
        };
        Facts {
            grant: self.pages(),
            held: self.pages(),
            wanted: self.pages(),
            ballooned: self.pages(),
            balloon_actual: self.pages(),
            balloon_target: self.pages(),
            balloon_driver: self.random.bool(),
            compressed: self.pages(),
            store: self.pages(),
            swapped: self.pages(),
            zipped: self.number(),
            unzipped: self.number(),
            swapped_out: self.number(),
            swapped_in: self.number(),
            blocked: self.random.bool(),
            paused: self.random.bool(),
            paging_stuck: self.random.bool(),
            swap_failed: self.random.bool(),
            shared: self.pages(),
            zero: self.pages(),
            scanned: self.number(),
            merged: self.number(),
            zeroed: self.number(),
            broken: self.number(),
            mismatched: self.number(),
            scan_cpu: self.time(),
            mappings_full: self.random.bool(),
            chunks: Chunks { empty: self.number(), large: self.number(), small: self.number() },
            faults: self.number(),
            stall_some: self.time(),
            stall_full: self.time(),
            reboots: self.random.u32(..),
            filtered: std::array::from_fn(|_| self.number()),
            guest: self.random.bool().then_some(guest),
            // Where the kernel finds nothing, or another mapping, or all of it.
            ram: if self.random.bool() { self.facts.ram } else { (self.number(), Bytes(self.number())) },
            sampling: SamplingFacts {
                executed: self.time(),
                period: self.number(),
                now: self.sample(),
                last: self.sample(),
            },
        }
    }
}
