use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{io, thread};

use plimsoll_pmap::{Inflation, Pmap, PpnRange, Release};
use plimsoll_protocol::control::{ExitReason, GuestFacts};
use plimsoll_protocol::definition::Balloon;
use plimsoll_sys::lock;
use plimsoll_units::{Bytes, Pages};
use vm_memory::{Bytes as _, GuestAddress};

use super::command::Command;
use super::input::Input;
use super::memory::Memory;
use super::pattern::{self, PAGE};
use super::regions::{Content, Region, Regions};
use crate::brake::Brake;
use crate::console::{Keyboard, Output};
use crate::guest::{BalloonFacts, Guest};
use crate::mailbox::Mailbox;

/// Pages that the balloon takes at once, as many as Linux's driver puts into one array.
const BALLOON_BATCH: usize = 256;
/// Pages that an allocation takes at once: a chunk.
const ALLOCATION: usize = 512;
/// Regions of patterned memory at once, as in the `toucher` program.
const MAX_REGIONS: usize = 64;

/// The parts that a model guest is made of.
pub(crate) struct Parts {
    pub(crate) pmap: Arc<Pmap>,
    pub(crate) regions: Vec<PpnRange>,
    pub(crate) balloon: Balloon,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) output: Arc<Output>,
    pub(crate) input: Arc<Input>,
    pub(crate) brake: Arc<Brake>,
}

/// The running model.
pub(crate) struct ModelGuest {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    memory: Mutex<Memory>,
    /// Ballooned pages that are not given back yet. Locked while `memory` is, so that a page which
    /// is taken out of the balloon is not given back later.
    inflation: Mutex<Inflation>,
    /// Something changed that may give the balloon's thread work.
    changed: Condvar,
    target: AtomicU64,
}

impl ModelGuest {
    /// Starts the model's threads.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn start(parts: Parts) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(parts));
        let balloon = Arc::clone(&shared);
        thread::Builder::new().name("model-balloon".to_owned()).spawn(move || balloon.drive_balloon())?;
        let commands = Arc::clone(&shared);
        thread::Builder::new().name("model-guest".to_owned()).spawn(move || commands.obey_commands())?;
        Ok(Self { shared })
    }
}

impl Guest for ModelGuest {
    fn press_power_button(&self) {
        self.shared.say("note power button");
        self.shared.parts.mailbox.exit(ExitReason::Shutdown);
    }

    fn press_reset_button(&self) {
        // What it is at comes to its end first.
        self.shared.parts.input.offer(b"\nreboot\n");
    }

    fn set_balloon_target(&self, pages: Pages) {
        // Under the lock, so that the balloon's thread cannot miss it between its last look and its
        // sleep.
        let memory = lock(&self.shared.memory);
        self.shared.target.store(pages.0, Ordering::Relaxed);
        self.shared.changed.notify_all();
        drop(memory);
    }

    fn balloon(&self) -> BalloonFacts {
        let memory = lock(&self.shared.memory);
        let (free, total) = (memory.free().bytes(), memory.total().bytes());
        let guest = GuestFacts {
            total,
            free,
            available: memory.available().bytes(),
            cache: memory.cached().bytes(),
            major_faults: 0,
            oom_kills: memory.oom_kills,
            ballooned: memory.ballooned(),
            ..GuestFacts::default()
        };
        let target = Pages(self.shared.target.load(Ordering::Relaxed));
        BalloonFacts { actual: memory.ballooned(), target, driver: true, guest: Some(guest) }
    }
}

impl Shared {
    fn new(parts: Parts) -> Self {
        let memory = Mutex::new(Memory::new(&parts.regions));
        let inflation = Mutex::new(Inflation::new(Arc::clone(&parts.pmap)));
        Self { parts, memory, inflation, changed: Condvar::new(), target: AtomicU64::new(0) }
    }

    /// The balloon's driver: follows the target as far as free pages go, and hands free chunks
    /// back.
    fn drive_balloon(&self) {
        let mut memory = lock(&self.memory);
        loop {
            if !self.step(&mut memory) {
                lock(&self.inflation).flush();
                memory = self.changed.wait(memory).unwrap_or_else(PoisonError::into_inner);
            } else {
                // Other threads get the lock between batches.
                drop(memory);
                memory = lock(&self.memory);
            }
        }
    }

    /// Does one batch of work; returns false if there is nothing to do.
    fn step(&self, memory: &mut Memory) -> bool {
        let target = Pages(self.target.load(Ordering::Relaxed));
        let actual = memory.ballooned();
        let batch = |pages: Pages| usize::try_from(pages.0).unwrap_or(usize::MAX).min(BALLOON_BATCH);
        if actual < target {
            let taken = memory.inflate(batch(target - actual));
            lock(&self.inflation).inflate(&taken);
            return !taken.is_empty();
        }
        if actual > target {
            let popped = memory.deflate(batch(actual - target));
            lock(&self.inflation).deflate(&popped);
            return !popped.is_empty();
        }
        let reported = if self.parts.balloon.free_page_reporting { memory.report() } else { Vec::new() };
        if reported.is_empty() {
            return false;
        }
        self.parts.pmap.release(&reported, Release::Reported);
        true
    }

    fn obey_commands(&self) {
        let mut regions = Regions::default();
        self.say("ready");
        loop {
            let line = self.parts.input.line();
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            match line.parse().and_then(|command| self.obey(command, &mut regions)) {
                Ok(said) if said.is_empty() => {}
                Ok(facts) => self.say(&format!("ok {facts}")),
                Err(error) => self.say(&format!("error {error}")),
            }
        }
    }

    /// Carries out `command`. Returns the answer: the command's name, then facts; empty if the
    /// answer was written already.
    fn obey(&self, command: Command, regions: &mut Regions) -> Result<String, String> {
        match command {
            Command::Touch(bytes, seed) => self.touch(bytes, seed, regions),
            Command::Rewrite(seed) => {
                let region = regions.find("rewrite", seed)?;
                region.content = Content::Pattern;
                self.fill(seed, region)?;
                Ok(format!("rewrite bytes={} seed={seed}", region.pages.len() * PAGE))
            }
            Command::Turn(seed, to) => self.turn(seed, to, regions),
            Command::Clear(seed) => {
                let region = regions.find("clear", seed)?;
                region.content = Content::Zeros;
                self.fill(seed, region)?;
                Ok(format!("clear bytes={} seed={seed}", region.pages.len() * PAGE))
            }
            Command::Thin(seed) => {
                let region = regions.find("thin", seed)?;
                region.content = Content::Thin;
                self.fill(seed, region)?;
                Ok(format!("thin bytes={} seed={seed}", region.pages.len() * PAGE))
            }
            Command::Verify(seed) => self.verify(seed, regions),
            Command::Free(seed) => {
                let mut freed = 0;
                regions.0.retain(|of, Region { pages, .. }| {
                    let goes = seed.is_none_or(|seed| seed == *of);
                    if goes {
                        freed += pages.len() * PAGE;
                        lock(&self.memory).release(pages.drain(..));
                    }
                    !goes
                });
                self.changed.notify_all();
                Ok(format!("free bytes={freed}"))
            }
            Command::Cache(bytes) => self.cache(bytes),
            Command::AllocForever => self.alloc_forever(),
            Command::Meminfo => {
                let memory = lock(&self.memory);
                let (total, free) = (memory.total().bytes().0, memory.free().bytes().0);
                let kills = memory.oom_kills;
                let available = memory.available().bytes().0;
                Ok(format!("meminfo total={total} free={free} available={available} oom_kills={kills}"))
            }
            Command::Devices => Ok("devices count=0 model".to_owned()),
            Command::PowerOff => {
                self.say("ok poweroff");
                self.parts.mailbox.exit(ExitReason::Shutdown);
                self.parts.input.wait_forever()
            }
            Command::Reboot => self.reboot(regions),
            Command::Crash => {
                self.say("ok crash");
                let how = "the model guest was told to crash".to_owned();
                self.parts.mailbox.exit(ExitReason::Crashed(how));
                self.parts.input.wait_forever()
            }
        }
    }

    fn touch(&self, bytes: u64, seed: u64, regions: &mut Regions) -> Result<String, String> {
        if regions.0.contains_key(&seed) {
            return Err(format!("touch seed {seed} is in use: free it first"));
        }
        if regions.0.len() == MAX_REGIONS {
            return Err(format!("touch {MAX_REGIONS} regions are in use: free some first"));
        }
        let wanted = Pages::ceil(Bytes(bytes));
        if wanted == Pages::ZERO || wanted > lock(&self.memory).total() {
            return Err(format!("touch {bytes} bytes is no size of memory"));
        }
        let wanted = usize::try_from(wanted.0).map_err(|error| format!("touch {bytes}: {error}"))?;
        let mut pages = Vec::new();
        while pages.len() < wanted {
            let more = self.allocate((wanted - pages.len()).min(ALLOCATION));
            if more.is_empty() {
                lock(&self.memory).release(pages);
                return Err(format!("touch {bytes} bytes: out of memory"));
            }
            (pages.len() as u64..).zip(&more).try_for_each(|(index, at)| self.write(*at, seed, index))?;
            pages.extend(more);
        }
        regions.0.insert(seed, Region { pages, content: Content::Pattern });
        Ok(format!("touch bytes={} seed={seed}", wanted * PAGE))
    }

    fn turn(&self, seed: u64, to: u64, regions: &mut Regions) -> Result<String, String> {
        if regions.0.contains_key(&to) {
            return Err(format!("turn seed {to} is in use: free it first"));
        }
        regions.find("turn", seed)?;
        let region = Region { content: Content::Pattern, ..regions.0.remove(&seed).unwrap_or_default() };
        self.fill(to, &region)?;
        let bytes = region.pages.len() * PAGE;
        regions.0.insert(to, region);
        Ok(format!("turn bytes={bytes} seed={to}"))
    }

    /// Fills up to `bytes` of free memory with page cache.
    fn cache(&self, bytes: u64) -> Result<String, String> {
        let wanted =
            usize::try_from(Pages::floor(Bytes(bytes)).0).map_err(|e| format!("cache {bytes}: {e}"))?;
        let mut done = 0;
        while done < wanted {
            let pages = lock(&self.memory).take_free((wanted - done).min(ALLOCATION));
            if pages.is_empty() {
                break;
            }
            // No seed of a region: what is cached is never verified.
            (done as u64..).zip(&pages).try_for_each(|(index, at)| self.write(*at, u64::MAX, index))?;
            done += pages.len();
            lock(&self.memory).cache(pages);
            self.changed.notify_all();
        }
        Ok(format!("cache bytes={}", done * PAGE))
    }

    /// Allocates up to `most` pages. If none is free, takes them out of the balloon where it
    /// deflates on OOM.
    fn allocate(&self, most: usize) -> Vec<usize> {
        let mut memory = lock(&self.memory);
        let pages = memory.allocate(most);
        if !pages.is_empty() || !self.parts.balloon.deflate_on_oom {
            return pages;
        }
        let popped = memory.deflate(most);
        lock(&self.inflation).deflate(&popped);
        memory.allocate(most)
    }

    /// Writes what the region of `seed` holds to all its pages.
    fn fill(&self, seed: u64, region: &Region) -> Result<(), String> {
        let mut pages = (0..).zip(&region.pages);
        pages.try_for_each(|(index, at)| self.write_page(*at, &region.content.page(seed, index)))
    }

    fn write(&self, at: usize, seed: u64, index: u64) -> Result<(), String> {
        self.write_page(at, &pattern::page(seed, index))
    }

    fn write_page(&self, at: usize, content: &[u8; PAGE]) -> Result<(), String> {
        let address = self.address(at)?;
        let wrote = self.parts.pmap.ram().write_slice(content, address);
        wrote.map_err(|error| format!("page {address:?}: {error}"))
    }

    fn address(&self, at: usize) -> Result<GuestAddress, String> {
        self.parts.brake.pass(|| false);
        let ppn = lock(&self.memory).ppn(at);
        ppn.address().map(GuestAddress).ok_or_else(|| format!("{ppn:?} has no address"))
    }

    fn verify(&self, seed: Option<u64>, regions: &Regions) -> Result<String, String> {
        let (mut pages, mut mismatched, mut first) = (0, 0, String::new());
        for (of, region) in regions.0.iter().filter(|(of, _)| seed.is_none_or(|seed| seed == **of)) {
            for (index, at) in (0..).zip(&region.pages) {
                let mut found = [0; PAGE];
                let address = self.address(*at)?;
                let read = self.parts.pmap.ram().read_slice(&mut found, address);
                read.map_err(|error| format!("page {address:?}: {error}"))?;
                pages += 1;
                if found != region.content.page(*of, index) {
                    mismatched += 1;
                    if first.is_empty() {
                        first = format!(" first_seed={of} first_page={index}");
                    }
                }
            }
        }
        Ok(format!("verify bytes={} pages={pages} mismatched={mismatched}{first}", pages * PAGE))
    }

    /// A process that takes memory until the guest's kernel kills it.
    fn alloc_forever(&self) -> Result<String, String> {
        self.say("note alloc-forever started");
        let mut pages = Vec::new();
        loop {
            let more = self.allocate(ALLOCATION);
            if more.is_empty() {
                break;
            }
            more.iter().try_for_each(|at| self.write(*at, 0, 0))?;
            pages.extend(more);
        }
        let bytes = pages.len() * PAGE;
        let mut memory = lock(&self.memory);
        memory.oom_kills += 1;
        memory.release(pages);
        drop(memory);
        self.changed.notify_all();
        Ok(format!("alloc-forever bytes={bytes} signal=9 status=0"))
    }

    fn reboot(&self, regions: &mut Regions) -> Result<String, String> {
        self.say("ok reboot");
        let mut memory = lock(&self.memory);
        if let Err(error) = self.parts.pmap.reset() {
            let what = format!("reboot: guest memory cannot be given back: {error}");
            self.parts.mailbox.exit(ExitReason::Failed(what.clone()));
            return Err(what);
        }
        lock(&self.inflation).clear();
        *memory = Memory::new(&self.parts.regions);
        *regions = Regions::default();
        drop(memory);
        self.parts.mailbox.rebooted();
        self.say("ready");
        Ok(String::new())
    }

    fn say(&self, text: &str) {
        self.parts.output.write(format!("\r\ntoucher: {text}\r\n").as_bytes());
    }
}

#[cfg(test)]
mod tests;
