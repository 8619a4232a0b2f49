//! Taking pages out of the mappings of frames, back into anonymous memory.
//!
//! A page that was shared lies in a mapping of the frame pool, also after the guest has written to it and the kernel has
//! copied it: it is then *overlaid*. Discarded there it would be the frame again, and a fresh anonymous mapping is not armed
//! for a moment. So whatever is to happen to such a page, it gets an anonymous place first, in one of two ways.

use std::io;

use crate::address::{ChunkNo, PageSet, SLOTS};
use crate::memory::Memory;
use crate::page::{Backing, Chunk, Islands, PageState, Table};

/// Puts anonymous memory in place of those of `pages` that are overlaid, content and all. No device may use them.
///
/// They are copied to a place of their own and moved from there, which is one step for everybody else: a page is there,
/// with its content, before and after. What is written in between waits, and comes to the new page.
pub(crate) fn rehome(memory: &Memory, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<()> {
    let pages = pages.intersection(&table.overlaid);
    if pages.is_empty() {
        return Ok(());
    }
    memory.protect(no, &pages)?;
    let moved = pages.runs().try_for_each(|run| {
        memory.replace_by_copy(no, run)?;
        table.overlaid = table.overlaid.minus(&PageSet::span(run.0, run.1));
        table.islands.put(run.0, run.1);
        Ok(())
    });
    // Whoever waits to write to one of them writes to its new place, or, where it has none, to the old one.
    memory.unprotect(no, &pages)?;
    moved
}

/// Puts fresh anonymous memory in place of those of `pages` that lie in the mapping of a frame, and gives the frames up. Their
/// content is lost: it is for pages that the guest has given up, and that are discarded next. Shared ones are absent then.
///
/// A whole chunk is one mapping afterwards. Where single pages are replaced, each run of them is one: the kernel does not
/// join them with their neighbours.
pub(crate) fn renew(memory: &Memory, no: ChunkNo, table: &mut Table, pages: &PageSet) -> io::Result<()> {
    let shared = table.among(pages, |state| state.frame().is_some());
    let framed = pages.intersection(&table.overlaid).union(&shared);
    let whole = pages.is_full() && !table.islands.is_empty();
    for run in if whole { *pages } else { framed }.runs() {
        memory.put_blank(no, run)?;
        table.islands.put(run.0, run.1);
        // What the guest touches until here it gets unasked. It is discarded with the rest.
        memory.arm_run(no, run)?;
        memory.discard(no, run)?;
        let run = PageSet::span(run.0, run.1);
        for slot in run.intersection(&shared).iter() {
            if let PageState::Shared(frame) = table.get(slot) {
                table.set(slot, PageState::Absent);
                table.departed.push((slot, frame));
            }
        }
        table.overlaid = table.overlaid.minus(&run);
        // Whoever waits to write to what was shared must ask anew.
        run.runs().for_each(|run| memory.wake_run(no, run));
    }
    if whole {
        table.islands = Islands::default();
    }
    Ok(())
}

/// Makes one mapping of a chunk of which nothing is left, so that it can be empty.
pub(crate) fn level(memory: &Memory, no: ChunkNo, chunk: &mut Chunk) {
    let Backing::Small(table) = &mut chunk.backing else { return };
    if table.is_empty().is_some()
        && !table.islands.is_empty()
        && let Err(error) = renew(memory, no, table, &PageSet::FULL)
    {
        tracing::debug!(%error, "a chunk of which nothing is left stays small");
    }
}

/// Makes one mapping of a chunk that had shared pages: the kernel makes huge pages of nothing else. All of its pages are
/// resident or blank, and no device uses them.
pub(crate) fn heal(memory: &Memory, no: ChunkNo, table: &mut Table) -> io::Result<()> {
    if table.islands.is_empty() {
        return Ok(());
    }
    let resident = table.pages(PageState::is_resident);
    memory.protect(no, &resident)?;
    if let Err(error) = memory.replace_by_one_mapping(no, &resident) {
        memory.unprotect(no, &resident)?;
        return Err(error);
    }
    (table.overlaid, table.islands) = (PageSet::EMPTY, Islands::default());
    memory.arm(no)?;
    memory.wake_run(no, (0, SLOTS));
    Ok(())
}
