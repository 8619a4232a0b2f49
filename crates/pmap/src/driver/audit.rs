use plimsoll_units::{Pages, Ppn};

use crate::address::{ChunkNo, PageSet};
use crate::page::{Backing, Chunk, PageState};
use crate::sync::MutexGuard;
use crate::transition::Vm;

/// A difference between what the pmap believes and what the kernel shows, or between two of its own
/// figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The kernel backs pages that the pmap takes for absent: they are held and not counted.
    #[error("{pages:?} in the chunk at {chunk:?}, from {first:?} on, should be absent and are present")]
    Present {
        /// The chunk's first page.
        chunk: Ppn,
        /// The first such page of the chunk.
        first: Ppn,
        /// How many there are in the chunk.
        pages: Pages,
    },
    /// The kernel backs nothing where the pmap has a resident page: its content is lost.
    #[error("{pages:?} in the chunk at {chunk:?}, from {first:?} on, should be present and are lost")]
    Lost {
        /// The chunk's first page.
        chunk: Ppn,
        /// The first such page of the chunk.
        first: Ppn,
        /// How many there are in the chunk.
        pages: Pages,
    },
    /// Pages are aside that no chunk has set aside: they are held and not counted.
    #[error("{pages:?} are aside and no chunk's")]
    Stray {
        /// How many there are in one place for pages that are aside.
        pages: Pages,
    },
    /// A page can be written without asking although its copy in the swap counts as good; or a
    /// write asks although there is no copy.
    #[error(
        "{pages:?} in the chunk at {chunk:?}, from {first:?} on, are write-protected and should not be, or should and are not"
    )]
    Protection {
        /// The chunk's first page.
        chunk: Ppn,
        /// The first such page of the chunk.
        first: Ppn,
        /// How many there are in the chunk.
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
    /// The number of pages that are compressed, swapped, shared or awaited is not the number
    /// counted.
    #[error("{marked:?} are marked as {what} and {counted:?} counted")]
    Elsewhere {
        /// Compressed, swapped, shared, or awaited from the swap.
        what: &'static str,
        /// Pages in that state.
        marked: Pages,
        /// What the account says.
        counted: Pages,
    },
    /// The number of ballooned pages is not the number counted.
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
    compressed: Pages,
    swapped: Pages,
    shared: Pages,
    awaited: Pages,
}

/// See [`Pmap::audit`](crate::Pmap::audit).
///
/// # Errors
/// Every mismatch found.
pub(crate) fn audit(vm: &Vm) -> Result<(), Vec<Mismatch>> {
    let chunks = vm.chunks.lock_all();
    let mut found = Vec::new();
    let mut sums = Sums::default();
    for (no, chunk) in chunks.iter().enumerate() {
        audit_chunk(vm, ChunkNo(no), chunk, &mut sums, &mut found);
    }
    audit_aside(vm, &chunks, &mut sums, &mut found);
    audit_account(vm, &sums, &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn audit_chunk(vm: &Vm, no: ChunkNo, chunk: &Chunk, sums: &mut Sums, found: &mut Vec<Mismatch>) {
    let tally = chunk.tally();
    sums.states += tally.backed;
    sums.ballooned += tally.ballooned;
    sums.compressed += tally.compressed;
    sums.swapped += tally.swapped;
    sums.awaited += tally.awaited;
    let seen = vm.memory.backed(no).and_then(|backed| Ok((backed, vm.memory.protected(no)?)));
    let (backed, protected) = match seen {
        Ok(seen) => seen,
        Err(error) => {
            found.push(Mismatch::Unreadable { errno: error.raw_os_error().unwrap_or_default() });
            return;
        }
    };
    let (may, must, clean) = match &chunk.backing {
        Backing::Empty { .. } | Backing::Aside(_) => (PageSet::EMPTY, PageSet::EMPTY, PageSet::EMPTY),
        Backing::Large => (PageSet::FULL, PageSet::EMPTY, PageSet::EMPTY),
        Backing::Small(table) => {
            let resident = table.pages(PageState::is_resident);
            (resident, resident, table.pages(|state| matches!(state, PageState::Clean(_))))
        }
    };
    // What the kernel shows of a frame's mapping says nothing: it comes and goes, and is a copy
    // already if a thread waits to write it.
    let frames = match &chunk.backing {
        Backing::Small(table) => table.pages(|state| state.frame().is_some()),
        _ => PageSet::EMPTY,
    };
    let unguarded = frames.minus(&protected);
    let (backed, protected) = (backed.minus(&frames), protected.minus(&frames));
    sums.resident += backed.count();
    sums.shared += tally.shared;
    let chunk = vm.memory.layout().ppn(no, 0);
    let mut differ = |pages: PageSet, mismatch: fn(Ppn, Ppn, Pages) -> Mismatch| {
        if let Some(first) = pages.iter().next() {
            found.push(mismatch(chunk, vm.memory.layout().ppn(no, first), pages.count()));
        }
    };
    differ(backed.minus(&may), |chunk, first, pages| Mismatch::Present { chunk, first, pages });
    differ(must.minus(&backed), |chunk, first, pages| Mismatch::Lost { chunk, first, pages });
    let unlike =
        clean.minus(&protected).union(&protected.intersection(&backed).minus(&clean)).union(&unguarded);
    differ(unlike, |chunk, first, pages| Mismatch::Protection { chunk, first, pages });
}

/// Checks that all memory behind guest RAM belongs to a chunk.
fn audit_aside(vm: &Vm, chunks: &[MutexGuard<'_, Chunk>], sums: &mut Sums, found: &mut Vec<Mismatch>) {
    let mut owned = vec![PageSet::EMPTY; vm.memory.spare_chunks()];
    for chunk in chunks {
        chunk.aside(|spare, pages| {
            let (chunk, slot) = spare.place();
            owned[chunk] = owned[chunk].union(&PageSet::span(slot, pages));
        });
    }
    for (chunk, owned) in owned.iter().enumerate() {
        match vm.memory.backed_spare(chunk) {
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

fn audit_account(vm: &Vm, sums: &Sums, found: &mut Vec<Mismatch>) {
    let account = vm.account();
    let (held, grant, counted) = (account.held(), account.grant(), account.ballooned());
    let resident = sums.resident + account.store();
    if resident > held {
        found.push(Mismatch::Uncounted { resident, held });
    }
    let states = sums.states + account.store();
    if states > held {
        found.push(Mismatch::Undercharged { states, held });
    }
    for (what, marked, counted) in [
        ("compressed", sums.compressed, account.compressed()),
        ("swapped", sums.swapped, account.swapped()),
        ("shared", sums.shared, account.shared()),
        ("awaited", sums.awaited, account.awaited()),
    ] {
        if marked != counted {
            found.push(Mismatch::Elsewhere { what, marked, counted });
        }
    }
    if held > grant {
        found.push(Mismatch::AboveGrant { held, grant });
    }
    if sums.ballooned != counted {
        found.push(Mismatch::Balloon { marked: sums.ballooned, counted });
    }
}
