//! What the pmap's operations cost on this machine, seen from a thread that touches guest memory:
//! `cargo run --release -p plimsoll-pmap --example measure`.
//!
//! Medians, in microseconds. A number to compare with the same machine's, not with another's.

#![allow(clippy::print_stdout, reason = "it prints a table")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_pmap::Event;
use plimsoll_pmap::{Config, GrantSource, Pmap, PpnRange, Release, uffd::Uffd};
use plimsoll_units::{CHUNK_PAGES, PAGE_SIZE, Pages, Ppn};
use vm_memory::{Bytes, GuestAddress};

/// 256 MiB: enough chunks for a median, little enough for any machine.
const CHUNKS: u64 = 128;

struct Generous;

impl GrantSource for Generous {
    fn want(&self, _total: Pages) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    // The first pass warms the host's memory, which on a nested host is dear when never used
    // before.
    for (huge_pages, shown) in [(true, false), (true, true), (false, true)] {
        let regions = vec![PpnRange::new(Ppn(0), Pages(CHUNKS * CHUNK_PAGES))];
        let grant = Pages(CHUNKS * CHUNK_PAGES);
        let pmap = Pmap::new(
            Config { regions, uffd: Uffd::open()?, huge_pages, grant, store: Pages::ZERO, swap: None },
            Arc::new(Generous),
        )?;
        let stop = Event::new()?;
        std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
            let server = scope.spawn(|| pmap.serve_faults(&stop));
            let rows = measure(&pmap, huge_pages);
            stop.signal();
            server.join().map_err(|_| "the fault thread died")??;
            rows?.iter().filter(|_| shown).for_each(|(what, median)| {
                println!("{what:<52} {:>9.1}", median.as_secs_f64() * 1e6);
            });
            Ok(())
        })?;
    }
    Ok(())
}

type Rows = Vec<(&'static str, Duration)>;

fn measure(pmap: &Pmap, huge_pages: bool) -> Result<Rows, Box<dyn Error>> {
    let write = |ppn: u64| pmap.ram().write_obj(1u64, GuestAddress(ppn * PAGE_SIZE));
    let mut rows = Rows::new();
    if huge_pages {
        let (all, chunk) = (0..CHUNKS, |i| PpnRange::new(Ppn(i * CHUNK_PAGES), Pages::CHUNK));
        rows.push((
            "first touch of a chunk that becomes large",
            median(all.clone(), |i| Ok(write(i * CHUNK_PAGES)?))?,
        ));
        rows.push((
            "release of a large chunk",
            median(all.clone(), |i| {
                pmap.release(&[chunk(i)], Release::Reported);
                Ok(())
            })?,
        ));
        all.clone().try_for_each(|i| write(i * CHUNK_PAGES))?;
        rows.push((
            "release of one page, breaking up a large chunk",
            median(all, |i| {
                pmap.release(&[PpnRange::page(Ppn(i * CHUNK_PAGES + 7))], Release::Reported);
                Ok(())
            })?,
        ));
    } else {
        rows.push(("first touch of a page of a small chunk", median(0..8 * CHUNK_PAGES, |i| Ok(write(i)?))?));
        rows.push((
            "release of a page of a small chunk",
            median(0..CHUNK_PAGES, |i| {
                pmap.release(&[PpnRange::page(Ppn(i))], Release::Reported);
                Ok(())
            })?,
        ));
        rows.push((
            "release of 512 pages of a small chunk",
            median(1..8, |i| {
                pmap.release(&[PpnRange::new(Ppn(i * CHUNK_PAGES), Pages::CHUNK)], Release::Reported);
                Ok(())
            })?,
        ));
        rows.push(("audit of 256 MiB", median(0..8, |_| pmap.audit().map_err(|found| found[0].into()))?));
    }
    Ok(rows)
}

/// The median time of `step` over `range`.
fn median(
    range: std::ops::Range<u64>,
    mut step: impl FnMut(u64) -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for i in range {
        let start = Instant::now();
        step(i)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().ok_or_else(|| "nothing to measure".into())
}
