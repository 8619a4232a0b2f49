use crate::address::{ChunkNo, MAX_INSIDE, Slot, Spare};
use crate::lock::{Lock, PROBES};

/// Large chunks whose insides are sampled: once one of them is touched, single pages of it are
/// watched until the period ends.
#[derive(Debug, Default)]
pub(crate) struct Probes(Lock<State, PROBES>);

#[derive(Debug)]
struct State {
    planned: Vec<Planned>,
    watched: Vec<Inside>,
    /// Places that nothing is in, and that no plan has.
    free: Vec<Spare>,
}

/// A chunk to be probed, and the places for pages of it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) chunk: ChunkNo,
    pub(crate) spares: Vec<Spare>,
}

/// A page of a probed chunk that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    pub(crate) chunk: ChunkNo,
    pub(crate) slot: Slot,
    pub(crate) spare: Spare,
}

impl Default for State {
    fn default() -> Self {
        let free = (0..MAX_INSIDE).map(Spare::of_inside).collect();
        Self { planned: Vec::new(), watched: Vec::new(), free }
    }
}

impl Probes {
    /// Plans to probe `chunk`, with at most `pages` pages.
    pub(crate) fn plan(&self, chunk: ChunkNo, pages: usize) {
        let mut state = self.0.lock();
        let first = state.free.len().saturating_sub(pages);
        let spares = state.free.split_off(first);
        state.planned.push(Planned { chunk, spares });
    }

    /// The plan for `chunk`, which is carried out once. Its places are the caller's.
    pub(crate) fn take(&self, chunk: ChunkNo) -> Option<Planned> {
        let planned = &mut self.0.lock().planned;
        let index = planned.iter().position(|one| one.chunk == chunk)?;
        Some(planned.swap_remove(index))
    }

    /// A page is watched.
    pub(crate) fn watch(&self, inside: Inside) {
        self.0.lock().watched.push(inside);
    }

    /// Nothing is in these places any more.
    pub(crate) fn release(&self, spares: impl IntoIterator<Item = Spare>) {
        self.0.lock().free.extend(spares);
    }

    /// How many pages are watched.
    pub(crate) fn watched(&self) -> u64 {
        self.0.lock().watched.len() as u64
    }

    /// Ends all plans, and returns what is watched.
    pub(crate) fn end(&self) -> Vec<Inside> {
        let mut state = self.0.lock();
        let unused: Vec<Spare> = state.planned.drain(..).flat_map(|planned| planned.spares).collect();
        state.free.extend(unused);
        std::mem::take(&mut state.watched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_nothing_is_in_it() {
        let probes = Probes::default();
        let free = || probes.0.lock().free.len();
        probes.plan(ChunkNo(1), 40);
        probes.plan(ChunkNo(2), 40);
        assert_eq!(free(), 0);
        let mut planned = probes.take(ChunkNo(2)).unwrap();
        assert_eq!(planned.spares.len(), MAX_INSIDE - 40, "no more than there are");
        assert!(probes.take(ChunkNo(2)).is_none());
        let spare = planned.spares.pop().unwrap();
        probes.watch(Inside { chunk: ChunkNo(2), slot: 7, spare });
        probes.release(planned.spares);
        assert_eq!(free(), MAX_INSIDE - 41);
        let watched = probes.end();
        assert_eq!(
            (watched.len(), free()),
            (1, MAX_INSIDE - 1),
            "what was planned is free, what is watched is not"
        );
        probes.release(watched.into_iter().map(|inside| inside.spare));
        assert_eq!((probes.watched(), free()), (0, MAX_INSIDE));
        assert!(probes.take(ChunkNo(1)).is_none());
    }
}
