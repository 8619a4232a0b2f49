//! Moving pages out of the mappings of frames, back into anonymous memory.
//!
//! A page that was shared lies in a mapping of the frame pool, also after the guest has written it
//! and the kernel has copied it: it is then *overlaid*. Discarded there, it would be the frame
//! again, and a fresh anonymous mapping is not armed for a moment. So before anything else can
//! become of such a page, it gets an anonymous place, in one of two ways.

use std::io;

use crate::address::{ChunkNo, PageSet, SLOTS};
use crate::memory::Memory;
use crate::page::{ExtraMappings, PageState, Step, Table};

/// Puts anonymous memory in the place of those of `pages` that are overlaid, content and all. No
/// device may use them.
///
/// They are copied behind guest RAM, and the copy is moved into their place in one step. A page is
/// there, with its content, before and after; a write in between waits, and goes to the new page.
pub(crate) fn make_anonymous(
    memory: &Memory,
    no: ChunkNo,
    table: &mut Table,
    pages: &PageSet,
) -> io::Result<()> {
    let pages = pages.intersection(&table.overlaid);
    if pages.is_empty() {
        return Ok(());
    }
    memory.protect(no, &pages)?;
    let moved = pages.runs().try_for_each(|run| {
        memory.replace_by_copy(no, run)?;
        table.overlaid = table.overlaid.minus(&PageSet::span(run.0, run.1));
        table.extra_mappings.put(run.0, run.1);
        Ok(())
    });
    // A waiting write goes to the page's new place, or to the old one if the move failed.
    memory.unprotect(no, &pages)?;
    moved
}

/// Puts fresh anonymous memory in the place of those of `pages` that lie in the mapping of a frame,
/// and gives the frames up. Their content is lost: this is for pages that the guest has given up
/// and that are discarded next. Shared ones are absent then (step `Release`).
///
/// If all pages of a chunk are named, it is one mapping afterwards. Otherwise each run is one: the
/// kernel does not join it with its neighbours.
pub(crate) fn replace_by_fresh(
    memory: &Memory,
    no: ChunkNo,
    table: &mut Table,
    pages: &PageSet,
) -> io::Result<()> {
    let shared = table.among(pages, |state| state.frame().is_some());
    let framed = pages.intersection(&table.overlaid).union(&shared);
    let whole = pages.is_full() && !table.extra_mappings.is_empty();
    for run in if whole { *pages } else { framed }.runs() {
        memory.put_blank(no, run)?;
        table.extra_mappings.put(run.0, run.1);
        // The kernel serves what the guest touches until here. The discard drops it again.
        memory.arm_run(no, run)?;
        memory.discard(no, run)?;
        let run = PageSet::span(run.0, run.1);
        for slot in run.intersection(&shared).iter() {
            if let PageState::Shared(frame) = table.get(slot) {
                table.set(slot, PageState::Absent, Step::Release);
                table.unreturned.push((slot, frame));
            }
        }
        table.overlaid = table.overlaid.minus(&run);
        // A thread that waits to write a page that was shared must ask anew.
        run.runs().for_each(|run| memory.wake_run(no, run));
    }
    if whole {
        table.extra_mappings = ExtraMappings::default();
    }
    Ok(())
}

/// Whether touches of a chunk's missing pages ask.
pub(crate) enum Armed {
    Yes,
    No,
}

/// Makes one mapping of a chunk that had shared pages: the kernel makes huge pages of nothing else.
/// All of its pages are resident or blank, all are charged, and no device uses them. A mapping that
/// is new is not armed, and threads that waited in the old one are woken.
pub(crate) fn merge_mappings(memory: &Memory, no: ChunkNo, table: &mut Table) -> io::Result<Armed> {
    if table.extra_mappings.is_empty() {
        return Ok(Armed::Yes);
    }
    let resident = table.pages(PageState::is_resident);
    memory.protect(no, &resident)?;
    if let Err(error) = memory.replace_by_one_mapping(no, &resident) {
        memory.unprotect(no, &resident)?;
        return Err(error);
    }
    (table.overlaid, table.extra_mappings) = (PageSet::EMPTY, ExtraMappings::default());
    memory.wake_run(no, (0, SLOTS));
    Ok(Armed::No)
}
