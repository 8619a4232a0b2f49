use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use plimsoll_units::Pages;

use crate::aside::{Evidence, MAX_SAMPLES, Spare};
use crate::chunk::Backing;
use crate::layout::ChunkNo;
use crate::page_set::SLOTS;
use crate::pmap::Pmap;

/// Estimates how much of its memory a VM uses, without asking the guest: puts randomly chosen parts of it aside for a
/// period, and counts how many are touched (Waldspurger 2002, section 5.3).
///
/// A large chunk is put aside as a whole, so that no huge page is broken for it. It costs whoever touches it a fault, once
/// a period; nothing is copied, and what is aside stays charged. It has no thread: whoever owns it says when periods
/// begin and end. There is one for a [`Pmap`] at a time.
#[derive(Debug)]
pub struct Sampler {
    pmap: Arc<Pmap>,
    samples: usize,
    random: Random,
    aside: Vec<(ChunkNo, Spare)>,
    seen: Seen,
    /// Samples that were seen in use without being put aside.
    in_use: u64,
    arrivals: u64,
}

/// What the samples of a period have shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Large chunks.
    pub chunks: Sampled,
    /// Pages of small chunks.
    pub pages: Sampled,
    /// Pages that faults have brought in since the period began: they were there to be touched, but not to be sampled.
    pub arrived: Pages,
}

/// Samples of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// How many there were to choose from when the period began.
    pub population: u64,
    /// How many are watched.
    pub sampled: u64,
    /// How many of those were touched since.
    pub touched: u64,
}

impl Sampler {
    /// A sampler that takes `samples` samples a period, at least 1 and at most [`MAX_SAMPLES`].
    pub fn new(pmap: Arc<Pmap>, samples: u32) -> Self {
        let samples = usize::try_from(samples).unwrap_or(MAX_SAMPLES).clamp(1, MAX_SAMPLES);
        let arrivals = pmap.account().arrivals();
        Self {
            pmap,
            samples,
            random: Random::new(),
            aside: Vec::new(),
            seen: Seen::default(),
            in_use: 0,
            arrivals,
        }
    }

    /// Begins a period: chooses what to watch, each page that the VM has with the same chance, so that a large chunk weighs
    /// 512. One that cannot be put aside now is not watched.
    pub fn begin(&mut self) {
        self.end();
        let (chosen, seen) = self.choose();
        (self.seen, self.in_use) = (seen, 0);
        self.arrivals = self.pmap.account().arrivals();
        self.pmap.touches.clear();
        for (spare, no) in chosen.into_iter().enumerate() {
            self.watch(no, Spare(spare));
        }
    }

    /// Ends the period: brings back what was not touched.
    pub fn end(&mut self) {
        let pmap = &self.pmap;
        for (no, spare) in self.aside.drain(..) {
            let mut chunk = pmap.chunk(no);
            if !matches!(chunk.backing, Backing::Aside(place) if place == spare) {
                // It was touched, or given back.
                continue;
            }
            match pmap.bring_back(no, &mut chunk) {
                Ok(()) => chunk.evidence = Evidence::Idle,
                // Its next touch tries again.
                Err(error) => tracing::error!(%error, ppn = pmap.layout.ppn(no, 0).0, "a chunk stays aside"),
            }
        }
    }

    /// What was seen of the period so far, or of the last one until the next begins.
    pub fn seen(&self) -> Seen {
        let mut seen = self.seen;
        let touched = self.pmap.touches.chunks() + self.in_use;
        seen.chunks.touched = touched.min(seen.chunks.sampled);
        seen.arrived = Pages(self.pmap.account().arrivals().saturating_sub(self.arrivals));
        seen
    }

    /// Draws as many pages as there are to be samples from all that the VM has. Two of the same chunk are one sample.
    fn choose(&mut self) -> (BTreeSet<ChunkNo>, Seen) {
        let mut seen = Seen::default();
        let mut ends = Vec::with_capacity(self.pmap.layout.chunks());
        let mut end = 0;
        for no in 0..self.pmap.layout.chunks() {
            if let Backing::Large = self.pmap.chunk(ChunkNo(no)).backing {
                seen.chunks.population += 1;
                end += u64::from(SLOTS);
            }
            ends.push(end);
        }
        let mut chosen = BTreeSet::new();
        for _ in 0..if end > 0 { self.samples } else { 0 } {
            let page = self.random.below(end);
            chosen.insert(ChunkNo(ends.partition_point(|&end| end <= page)));
        }
        (chosen, seen)
    }

    fn watch(&mut self, no: ChunkNo, spare: Spare) {
        let mut chunk = self.pmap.chunk(no);
        let Backing::Large = chunk.backing else { return };
        if !chunk.busy().is_empty() {
            // A device is at it, which no fault would show.
            chunk.evidence = Evidence::Used;
            (self.seen.chunks.sampled, self.in_use) = (self.seen.chunks.sampled + 1, self.in_use + 1);
            return;
        }
        match self.pmap.put_chunk_aside(no, &mut chunk, spare) {
            Ok(()) => {
                self.seen.chunks.sampled += 1;
                self.aside.push((no, spare));
            }
            Err(error) => tracing::debug!(%error, "a chunk cannot be put aside"),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// xorshift64*, from a seed that no guest knows: one that knew which pages are watched could seem idle.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// A number below `n`, which is not 0. For any memory that there is, all are as likely but for one part in 2^20.
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n
    }
}
