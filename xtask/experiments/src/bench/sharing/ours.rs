//! What Plimsoll makes of it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use plimsoll_pmap::{ScanOrder, Stats};
use plimsoll_units::{CHUNK_PAGES, PAGE_SIZE, Pages};

use super::data::{self, Contents, Data, Memory};
use super::host::{Host, Member};
use super::outcome::{Convergence, Meter, Outcome, Spent, median, process_cpu};
use crate::bench::memory::guest::Guest;
use crate::bench::memory::processor::Place;

/// CPU time for which a VM's memory is scanned before it is another's turn.
const SLICE: Duration = Duration::from_millis(10);
const ORDER: ScanOrder = ScanOrder { break_large: true };

/// What a mapping takes of the kernel's memory, its part of the tree of mappings included, in
/// bytes; measured on Linux 6.18.
const MAPPING: u64 = 271;
/// What the pmap knows of a page of a small chunk: its state, and what the scanner remembers of it.
const STATE: u64 = 8 + 4;

/// Two VMs in one sharing domain.
struct Fleet {
    host: Arc<Host>,
    vms: Vec<(Guest, Arc<Member>)>,
    mappings_before: u64,
}

/// Measures our sharing.
pub(crate) fn measure(data: Data, memory: Memory) -> Result<Outcome> {
    let pages = memory.chunks * CHUNK_PAGES;
    let contents = data.contents(pages);
    let fleet = Fleet::new(&contents, memory)?;
    let meter = Meter::start(|| Ok(process_cpu()))?;
    let mut convergence = Convergence::new(data.mergeable(pages), 0);
    let mut passes = [0; 2];
    let merged = loop {
        fleet.scan(&mut passes)?;
        let merged = fleet.merged();
        if convergence.is_reached(merged, passes[0].min(passes[1]))? {
            break merged;
        }
    };
    let converged = meter.spent()?;
    fleet.pass()?;
    let second_pass = fleet.pass()?;
    let saved = fleet.saved()?;
    let broken = median(&contents[0], |ppn| fleet.vms[0].0.overwrite(ppn))?;
    Ok(Outcome { converged, merged, second_pass, saved, broken })
}

impl Fleet {
    fn new(contents: &[Contents], memory: Memory) -> Result<Self> {
        let mappings_before = mappings()?;
        let pages = Pages(memory.chunks * CHUNK_PAGES);
        let host = Host::new(Pages(pages.0 * contents.len() as u64))?;
        let mut vms = Vec::new();
        for contents in contents {
            let guest = Guest::new(memory.chunks, Pages::ZERO, None, Place::Elsewhere)?;
            for (ppn, &content) in (0..).zip(contents) {
                guest.fill(ppn, &data::page(content))?;
            }
            // Frames are paid for before the pages that they replace are given up.
            guest.pmap.add_grant(pages);
            let member = host.join(&guest.pmap)?;
            vms.push((guest, member));
        }
        Ok(Self { host, vms, mappings_before })
    }

    /// Scans each VM for a while, and counts the passes that ended.
    fn scan(&self, passes: &mut [u64; 2]) -> Result<()> {
        for ((vm, _), passes) in self.vms.iter().zip(passes) {
            *passes += u64::from(vm.pmap.scan(ORDER, SLICE).pass_ended);
            self.vms.iter().try_for_each(|(vm, member)| member.deliver(&vm.pmap))?;
        }
        Ok(())
    }

    /// Scans until all memory of both has been looked at once more.
    fn pass(&self) -> Result<Spent> {
        let meter = Meter::start(|| Ok(process_cpu()))?;
        for (vm, member) in &self.vms {
            while !vm.pmap.scan(ORDER, SLICE).pass_ended {}
            member.deliver(&vm.pmap)?;
        }
        meter.spent()
    }

    /// Pages that need not be there any more.
    fn merged(&self) -> u64 {
        let shared_or_zero = |stats: Stats| stats.shared.0 + stats.zero.0;
        let all: u64 = self.vms.iter().map(|(vm, _)| shared_or_zero(vm.pmap.stats())).sum();
        all.saturating_sub(self.host.stats().frames.0)
    }

    /// Bytes saved, less those of the index, of what is known of pages, and of the kernel's
    /// mappings.
    fn saved(&self) -> Result<i64> {
        let index = self.host.stats().index.0;
        let chunks: u64 = self.vms.iter().map(|(vm, _)| vm.pmap.stats().chunks_small).sum();
        let mappings = mappings()?.saturating_sub(self.mappings_before);
        let cost = index + chunks * CHUNK_PAGES * STATE + mappings * MAPPING;
        Ok(i64::try_from(self.merged() * PAGE_SIZE)? - i64::try_from(cost)?)
    }
}

/// Mappings of this process.
fn mappings() -> Result<u64> {
    let path = "/proc/self/maps";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.lines().count() as u64)
}
