#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use plimsoll_units::Pages;

use super::service::serve_freed;
use crate::address::{ChunkNo, Kind, MAX_INSIDE, MAX_SAMPLES, Place, SLOTS, Slot, Spare};
use crate::page::{Activity, Backing, Inside, PageState};
use crate::sync::Arc;
use crate::transition::Vm;
use crate::transition::aside::{bring_back, bring_page_back, put_chunk_aside, put_page_aside};

/// Estimates how much of its memory a VM uses, without asking the guest: sets randomly chosen parts
/// of it aside for a period, and counts how many are touched (Waldspurger 2002, section 5.3).
///
/// A large chunk is set aside as a whole, so that no huge page is broken for it; of small chunks
/// single pages are. A touched chunk need not be in use as a whole: see [`Sampler::probing`]. A
/// touch of a sample costs a fault, once a period. Nothing is copied, and samples stay charged. A
/// sampler has no thread: its owner says when periods begin and end. There is one for a
/// [`Pmap`](crate::Pmap) at a time.
#[derive(Debug)]
pub struct Sampler {
    vm: Arc<Vm>,
    samples: usize,
    probes: usize,
    watched: Vec<Watched>,
    seen: Seen,
    arrivals: u64,
}

/// A sample, and where it is.
#[derive(Clone, Copy, Debug)]
struct Watched {
    chunk: ChunkNo,
    /// The page, or `None` for the whole chunk.
    slot: Option<Slot>,
    spare: Spare,
}

/// A drawn sample: a chunk, or the n-th resident page of one.
type Drawn = (ChunkNo, Option<usize>);

/// What the samples of a period show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Large chunks.
    pub chunks: Sampled,
    /// Pages of small chunks.
    pub pages: Sampled,
    /// Pages of large chunks that were touched, other than the one of the first touch. The
    /// population is that of `chunks`.
    pub inside: Sampled,
    /// Pages that faults have brought in since the period began. They could be touched, but not
    /// sampled.
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
    pub(crate) fn over(vm: Arc<Vm>, samples: u32) -> Self {
        let samples = usize::try_from(samples).unwrap_or(MAX_SAMPLES).clamp(1, MAX_SAMPLES);
        let arrivals = vm.account().arrivals();
        Self { vm, samples, probes: 0, watched: Vec::new(), seen: Seen::default(), arrivals }
    }

    /// Probes up to `chunks` large chunks in each period from now on: those that are touched are
    /// made small, and up to 64 pages inside them all are watched.
    pub fn probing(mut self, chunks: u32) -> Self {
        self.probes = usize::try_from(chunks).unwrap_or(MAX_INSIDE).min(MAX_INSIDE);
        self
    }

    /// Begins a period: draws samples, each resident page with the same chance, so that a large
    /// chunk weighs 512. A sample that cannot be set aside now is left out.
    pub fn begin(&mut self) {
        self.end();
        let drawn = self.draw();
        self.arrivals = self.vm.account().arrivals();
        self.vm.touches.clear();
        self.plan_probes(&drawn);
        let mut chunks = free_places(&self.watched, Spare::of_chunk);
        let mut pages = free_places(&self.watched, Spare::of_page);
        for (no, nth) in drawn {
            match nth {
                None => chunks.next().into_iter().for_each(|spare| self.watch_chunk(no, spare)),
                Some(nth) => pages.next().into_iter().for_each(|spare| self.watch_page(no, nth, spare)),
            }
        }
    }

    /// Ends the period: brings back the samples that were not touched. One that cannot be brought
    /// back keeps its place, and is tried again at its next touch and at the end of the next
    /// period.
    pub fn end(&mut self) {
        let inside = self.vm.probes.end();
        self.seen.inside.sampled += inside.len() as u64;
        let inside = inside.into_iter().map(|Inside { chunk, slot, spare }| Watched {
            chunk,
            slot: Some(slot),
            spare,
        });
        let watched = std::mem::take(&mut self.watched).into_iter().chain(inside);
        let (left, ended): (Vec<_>, Vec<_>) = watched.partition(|&watched| !self.end_one(watched));
        self.watched = left;
        let places = ended.into_iter().map(|watched| watched.spare);
        self.vm.probes.release(places.filter(|spare| spare.kind() == Kind::Inside));
    }

    /// Plans to look inside some of the large chunks among `drawn`. Planned before they are set
    /// aside: those that are touched at once are the busiest.
    fn plan_probes(&self, drawn: &BTreeSet<Drawn>) {
        let mut large: Vec<ChunkNo> =
            drawn.iter().filter(|(_, nth)| nth.is_none()).map(|(no, _)| *no).collect();
        fastrand::shuffle(&mut large);
        let pages = MAX_INSIDE / self.probes.max(1);
        large.into_iter().take(self.probes).for_each(|no| self.vm.probes.plan(no, pages));
    }

    /// Brings back one sample; false if it is still aside.
    fn end_one(&self, watched: Watched) -> bool {
        let Watched { chunk: no, slot, spare } = watched;
        let mut chunk = self.vm.chunk(no);
        let untouched = match (&chunk.backing, slot) {
            (Backing::Aside(place), None) => *place == spare,
            (Backing::Small(table), Some(slot)) => table.get(slot) == PageState::Aside(spare),
            _ => false,
        };
        if !untouched {
            // The sample was touched, or given back.
            return true;
        }
        let brought = match slot {
            None => bring_back(&self.vm.memory, no, &mut chunk),
            Some(slot) => bring_page_back(&self.vm.memory, Place { chunk: no, slot }, &mut chunk).map(drop),
        };
        match brought {
            Ok(()) if chunk.activity == Activity::Unknown => chunk.activity = Activity::Idle,
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, ppn = self.vm.memory.layout().ppn(no, 0).0, "memory stays aside");
                return false;
            }
        }
        true
    }

    /// What the period has shown so far, or the last one until the next begins.
    pub fn seen(&self) -> Seen {
        let mut seen = self.seen;
        let touches = &self.vm.touches;
        for (sampled, touched) in [(&mut seen.chunks, touches.chunks()), (&mut seen.pages, touches.pages())] {
            sampled.touched = u64::from(touched).min(sampled.sampled);
        }
        seen.inside.population = seen.chunks.population;
        seen.inside.sampled += self.vm.probes.watched();
        seen.inside.touched = u64::from(touches.inside()).min(seen.inside.sampled);
        seen.arrived = Pages(self.vm.account().arrivals().saturating_sub(self.arrivals));
        seen
    }

    /// Draws as many of the resident pages as there are to be samples. Two pages of one large chunk
    /// are one sample.
    fn draw(&mut self) -> BTreeSet<Drawn> {
        self.seen = Seen::default();
        let chunks = self.vm.memory.layout().chunks();
        // For each chunk, the number of pages up to its end, and whether it is large.
        let mut ends: Vec<(u64, bool)> = Vec::with_capacity(chunks);
        let mut end = 0;
        for no in 0..chunks {
            let large = match &self.vm.chunk(ChunkNo(no)).backing {
                Backing::Large => {
                    self.seen.chunks.population += 1;
                    end += u64::from(SLOTS);
                    true
                }
                Backing::Small(table) => {
                    let pages = table.pages(PageState::is_resident).count().0;
                    self.seen.pages.population += pages;
                    end += pages;
                    false
                }
                Backing::Empty { .. } | Backing::Aside(_) => false,
            };
            ends.push((end, large));
        }
        let mut drawn = BTreeSet::new();
        for _ in 0..if end > 0 { self.samples } else { 0 } {
            let page = fastrand::u64(..end);
            let no = ends.partition_point(|&(end, _)| end <= page);
            let first = no.checked_sub(1).map_or(0, |before| ends[before].0);
            #[expect(clippy::cast_possible_truncation, reason = "less than a chunk")]
            let nth = (!ends[no].1).then_some((page - first) as usize);
            drawn.insert((ChunkNo(no), nth));
        }
        drawn
    }

    fn watch_chunk(&mut self, no: ChunkNo, spare: Spare) {
        let mut chunk = self.vm.chunk(no);
        let Backing::Large = chunk.backing else { return };
        if !chunk.busy().is_empty() {
            // A device uses the chunk, which no fault would show.
            chunk.activity = Activity::Used;
            self.vm.touches.count_chunk();
        } else {
            let before = chunk.tally();
            let put = put_chunk_aside(&self.vm.memory, no, &mut chunk, spare);
            // The chunk may have become small.
            let freed = self.vm.record(before, &chunk);
            if let Err(error) = put {
                drop(chunk);
                serve_freed(&self.vm, freed);
                return tracing::debug!(%error, "a chunk cannot be put aside");
            }
            chunk.activity = Activity::Unknown;
            self.watched.push(Watched { chunk: no, slot: None, spare });
        }
        self.seen.chunks.sampled += 1;
    }

    fn watch_page(&mut self, no: ChunkNo, nth: usize, spare: Spare) {
        let mut chunk = self.vm.chunk(no);
        let Backing::Small(table) = &chunk.backing else { return };
        // Counted as when they were drawn, with those that were set aside since. Some may be gone.
        let drawn_from = table.pages(|state| state.is_resident() || matches!(state, PageState::Aside(_)));
        let slot = drawn_from.iter().nth(nth).filter(|&slot| table.get(slot).is_resident());
        let Some(slot) = slot else { return };
        if chunk.busy().contains(slot) {
            chunk.activity = Activity::Used;
            self.vm.touches.count_page();
        } else {
            let before = chunk.tally();
            let put = put_page_aside(&self.vm, Place { chunk: no, slot }, &mut chunk, spare);
            // The page may have been moved out of the mapping of a frame.
            self.vm.record(before, &chunk);
            if let Err(error) = put {
                return tracing::debug!(%error, "a page cannot be put aside");
            }
            chunk.activity = Activity::Unknown;
            self.watched.push(Watched { chunk: no, slot: Some(slot), spare });
        }
        self.seen.pages.sampled += 1;
    }
}

/// The places of one kind that no sample of `watched` has.
fn free_places(watched: &[Watched], place: fn(usize) -> Spare) -> impl Iterator<Item = Spare> + use<> {
    let taken: Vec<Spare> = watched.iter().map(|watched| watched.spare).collect();
    (0..MAX_SAMPLES).map(place).filter(move |spare| !taken.contains(spare))
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}
