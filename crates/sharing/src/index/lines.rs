use std::io;

use super::line::Line;
use crate::mmap::{Grain, HUGE, Zeroed};
use crate::prefetch::prefetch;

/// Lines in a slab: a huge page of them.
const SLAB: usize = HUGE / size_of::<Line>();

/// Slabs with small pages. After this many, a huge page that is only begun is less than a tenth of
/// what the table takes; before, it could be most of it.
const SMALL_SLABS: usize = 8;

/// A row of lines that grows and shrinks at its end without ever moving.
#[derive(Debug, Default)]
pub(super) struct Lines {
    slabs: Vec<Zeroed<Line>>,
    len: usize,
}

impl Lines {
    #[inline]
    pub(super) fn get(&self, line: usize) -> &Line {
        &self.slabs[line / SLAB][line % SLAB]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, line: usize) -> &mut Line {
        &mut self.slabs[line / SLAB][line % SLAB]
    }

    #[inline]
    pub(super) fn prefetch(&self, line: usize) {
        prefetch(self.get(line));
    }

    /// Adds an empty line at the end. Fails if the host has no memory.
    pub(super) fn push(&mut self) -> io::Result<()> {
        if self.len == self.slabs.len() * SLAB {
            let grain = if self.slabs.len() < SMALL_SLABS { Grain::Small } else { Grain::Huge };
            self.slabs.push(Zeroed::new(SLAB, grain)?);
        }
        self.len += 1;
        *self.get_mut(self.len - 1) = Line::default();
        Ok(())
    }

    /// Gives up the last line, whatever is in it.
    pub(super) fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
        self.slabs.truncate(self.len.div_ceil(SLAB));
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory that it takes: begun pages count whole.
    pub(super) fn bytes(&self) -> usize {
        let lines = if self.slabs.len() <= SMALL_SLABS {
            (self.len * size_of::<Line>()).next_multiple_of(4096)
        } else {
            self.slabs.len() * HUGE
        };
        lines + self.slabs.capacity() * size_of::<Zeroed<Line>>()
    }
}
