use crate::sync::MutexGuard;

use plimsoll_units::{Pages, Ppn};

use crate::aside::Spare;
use crate::chunk::{Backing, Chunk, PageState};
use crate::host_range::CHUNK;
use crate::layout::ChunkNo;
use crate::page_set::PageSet;
use crate::pmap::Pmap;

/// A difference between what the pmap believes and what the kernel shows, or between two of its own figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The kernel backs pages that the pmap takes for absent: they are held and nobody counts them.
    #[error("{pages:?} in the chunk at {chunk:?}, from {first:?} on, should be absent and are present")]
    Present {
        /// The chunk's first page.
        chunk: Ppn,
        /// The first such page of the chunk.
        first: Ppn,
        /// How many there are in the chunk.
        pages: Pages,
    },
    /// The kernel backs nothing where the pmap has a private page: its content is lost.
    #[error("{pages:?} in the chunk at {chunk:?}, from {first:?} on, should be present and are lost")]
    Lost {
        /// The chunk's first page.
        chunk: Ppn,
        /// The first such page of the chunk.
        first: Ppn,
        /// How many there are in the chunk.
        pages: Pages,
    },
    /// Pages are aside that no chunk has put there: they are held and nobody counts them.
    #[error("{pages:?} are aside and no chunk's")]
    Stray {
        /// How many there are in one place for pages that are aside.
        pages: Pages,
    },
    /// More is resident than is counted.
    #[error("{resident:?} are resident and only {held:?} counted as held")]
    Uncounted {
        /// What the kernel backs.
        resident: Pages,
        /// What the account says.
        held: Pages,
    },
    /// The states of the chunks add up to more than is counted.
    #[error("the chunks' states add up to {states:?} and only {held:?} are counted as held")]
    Undercharged {
        /// The sum of the chunks' costs.
        states: Pages,
        /// What the account says.
        held: Pages,
    },
    /// More is held than granted.
    #[error("{held:?} are held and only {grant:?} granted")]
    AboveGrant {
        /// What is held.
        held: Pages,
        /// What was granted.
        grant: Pages,
    },
    /// The balloon's size is not the number of pages in it.
    #[error("{marked:?} are marked as ballooned and {counted:?} counted")]
    Balloon {
        /// Pages in state ballooned.
        marked: Pages,
        /// What the account says.
        counted: Pages,
    },
    /// The kernel's view could not be read.
    #[error("/proc/self/pagemap cannot be read (error {errno})")]
    Unreadable {
        /// The kernel's reason.
        errno: i32,
    },
}

/// Sums over the chunks, and the kernel's view of them.
#[derive(Default)]
struct Sums {
    resident: Pages,
    states: Pages,
    ballooned: Pages,
}

impl Pmap {
    /// Compares every page's state with the kernel's view of it, and the account with both, while nothing moves: all
    /// transitions wait for as long as it takes, a few milliseconds for each GiB.
    ///
    /// # Errors
    /// Every mismatch found, at most two for each chunk, one for each that is aside, and four for the whole. Each is a defect of this crate, or
    /// of somebody who mapped over guest memory.
    pub fn audit(&self) -> Result<(), Vec<Mismatch>> {
        let chunks = self.all_chunks();
        let mut found = Vec::new();
        let mut sums = Sums::default();
        for (no, chunk) in chunks.iter().enumerate() {
            self.audit_chunk(ChunkNo(no), chunk, &mut sums, &mut found);
        }
        self.audit_aside(&chunks, &mut sums, &mut found);
        self.audit_account(&sums, &mut found);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn audit_chunk(&self, no: ChunkNo, chunk: &Chunk, sums: &mut Sums, found: &mut Vec<Mismatch>) {
        let tally = chunk.tally();
        sums.states += tally.backed;
        sums.ballooned += tally.ballooned;
        let backed = match self.pagemap.backed(self.chunk_range(no).start) {
            Ok(backed) => backed,
            Err(error) => {
                found.push(Mismatch::Unreadable { errno: error.raw_os_error().unwrap_or_default() });
                return;
            }
        };
        sums.resident += backed.count();
        let (may, must) = match &chunk.backing {
            Backing::Empty { .. } | Backing::Aside(_) => (PageSet::EMPTY, PageSet::EMPTY),
            Backing::Large => (PageSet::FULL, PageSet::EMPTY),
            Backing::Small(table) => {
                let private = table.pages(PageState::Private);
                (private, private)
            }
        };
        let chunk = self.layout.ppn(no, 0);
        let extra = backed.minus(&may);
        if let Some(first) = extra.iter().next() {
            let first = self.layout.ppn(no, first);
            found.push(Mismatch::Present { chunk, first, pages: extra.count() });
        }
        let lost = must.minus(&backed);
        if let Some(first) = lost.iter().next() {
            let first = self.layout.ppn(no, first);
            found.push(Mismatch::Lost { chunk, first, pages: lost.count() });
        }
    }

    /// What is aside belongs to a chunk.
    fn audit_aside(&self, chunks: &[MutexGuard<'_, Chunk>], sums: &mut Sums, found: &mut Vec<Mismatch>) {
        let mut owned = vec![PageSet::EMPTY; self.touches.spares()];
        for chunk in chunks {
            chunk.aside(|spare, pages| owned[spare.0] = pages);
        }
        for (spare, owned) in owned.iter().enumerate() {
            match self.pagemap.backed(self.mapping.range(self.spare_offset(Spare(spare)), CHUNK).start) {
                Ok(backed) => {
                    sums.resident += backed.count();
                    let strays = backed.minus(owned).count();
                    if strays > Pages::ZERO {
                        found.push(Mismatch::Stray { pages: strays });
                    }
                }
                Err(error) => {
                    found.push(Mismatch::Unreadable { errno: error.raw_os_error().unwrap_or_default() });
                }
            }
        }
    }

    fn audit_account(&self, sums: &Sums, found: &mut Vec<Mismatch>) {
        let (held, grant, counted) = {
            let account = self.account();
            (account.held(), account.grant(), account.ballooned())
        };
        if sums.resident > held {
            found.push(Mismatch::Uncounted { resident: sums.resident, held });
        }
        if sums.states > held {
            found.push(Mismatch::Undercharged { states: sums.states, held });
        }
        if held > grant {
            found.push(Mismatch::AboveGrant { held, grant });
        }
        if sums.ballooned != counted {
            found.push(Mismatch::Balloon { marked: sums.ballooned, counted });
        }
    }
}
