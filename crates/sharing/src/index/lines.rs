use super::line::Line;
use crate::prefetch::prefetch;

/// Lines in a slab, 256 KiB: a table grows and shrinks at its end by slabs, and nothing of it ever moves but
/// the last slab as long as that is not full, which is what this bounds. Smaller ones would make the list of
/// slabs too long for the processor's nearest cache.
const SLAB: usize = 1 << 12;

/// A row of lines that grows and shrinks at its end without moving.
#[derive(Debug, Default)]
pub(super) struct Lines {
    slabs: Vec<Vec<Line>>,
}

impl Lines {
    pub(super) fn get(&self, line: usize) -> &Line {
        &self.slabs[line / SLAB][line % SLAB]
    }

    pub(super) fn get_mut(&mut self, line: usize) -> &mut Line {
        &mut self.slabs[line / SLAB][line % SLAB]
    }

    pub(super) fn prefetch(&self, line: usize) {
        prefetch(self.get(line));
    }

    /// An empty line at the end.
    pub(super) fn push(&mut self) {
        match self.slabs.last_mut() {
            Some(slab) if slab.len() < SLAB => slab.push(Line::default()),
            _ => self.slabs.push(vec![Line::default()]),
        }
    }

    /// Gives up the last line, whatever is in it.
    pub(super) fn pop(&mut self) {
        let Some(slab) = self.slabs.last_mut() else { return };
        slab.pop();
        if slab.is_empty() {
            self.slabs.pop();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slabs.last().map_or(0, |last| (self.slabs.len() - 1) * SLAB + last.len())
    }

    pub(super) fn bytes(&self) -> usize {
        let lines: usize = self.slabs.iter().map(Vec::capacity).sum();
        lines * size_of::<Line>() + self.slabs.capacity() * size_of::<Vec<Line>>()
    }
}
