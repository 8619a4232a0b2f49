//! Storage in memory that can lose what was not made durable: for tests and fuzzing.

use std::io;
use std::sync::{Arc, Mutex};

use plimsoll_sys::lock;

use crate::cache::index;
use crate::latch::SyncLatch;
use crate::storage::Storage;

/// Bytes that a disk writes all or none of, when the power is cut.
const SECTOR: usize = 512;
/// Longest content: far beyond it, a damaged offset is an error as on a full disk.
const MOST: u64 = 16 << 20;

/// What fails once, and goes on after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Read,
    Write,
    /// What was not durable stays to be made so, as with direct I/O.
    Sync,
    /// A part of what was not durable is lost, as in the kernel's page cache.
    CachedSync,
    Free,
}

/// Storage in memory. Clones share it, as two descriptors share a file.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    content: Arc<Mutex<Content>>,
    /// See [`Storage::block`].
    block: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since it was made durable, in sectors at most.
    pending: Vec<(usize, Vec<u8>)>,
    /// How many writes and syncs are still done; then the power is gone. `None`: all.
    left: Option<u16>,
    /// What fails once, after how many more of its kind.
    faults: Vec<(Fault, u16)>,
    latch: SyncLatch,
}

impl Content {
    /// Counts a write or a sync.
    fn count(&mut self) -> io::Result<()> {
        if self.left == Some(0) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }

    /// Whether what is about to be done fails by `fault`.
    fn fails(&mut self, fault: Fault) -> bool {
        let mut fails = false;
        self.faults.retain_mut(|(kind, left)| {
            let is_due = *kind == fault && *left == 0;
            *left -= u16::from(*kind == fault && *left > 0);
            fails |= is_due;
            !is_due
        });
        fails
    }

    /// Fails if `fault` is due.
    fn judge(&mut self, fault: Fault) -> io::Result<()> {
        if self.fails(fault) { Err(io::Error::other("it was to fail once")) } else { Ok(()) }
    }
}

impl Memory {
    /// Storage with `content`, which is durable.
    pub(crate) fn new(content: Vec<u8>) -> Self {
        let content = Content { now: content.clone(), durable: content, ..Content::default() };
        Self { content: Arc::new(Mutex::new(content)), block: 1 }
    }

    /// The same storage with blocks of `block` bytes.
    #[cfg(test)]
    pub(crate) fn with_block(self, block: u64) -> Self {
        Self { block, ..self }
    }

    /// The power goes after `left` more writes and syncs: all others fail, until it is cut.
    #[cfg(test)]
    pub(crate) fn fail_after(&self, left: u16) {
        lock(&self.content).left = Some(left);
    }

    /// Has `fault` happen once, after `left` more that do not.
    #[cfg(test)]
    pub(crate) fn fail_once(&self, fault: Fault, left: u16) {
        lock(&self.content).faults.push((fault, left));
    }

    /// Whether a fault has yet to happen.
    #[cfg(test)]
    pub(crate) fn has_faults(&self) -> bool {
        !lock(&self.content).faults.is_empty()
    }

    /// Nothing fails any more that was to fail once.
    #[cfg(test)]
    pub(crate) fn heal(&self) {
        lock(&self.content).faults.clear();
    }

    /// Whether it has lost what was written.
    #[cfg(test)]
    pub(crate) fn has_lost(&self) -> bool {
        lock(&self.content).latch.check().is_err()
    }

    /// What it holds.
    #[cfg(test)]
    pub(crate) fn content(&self) -> Vec<u8> {
        lock(&self.content).now.clone()
    }

    /// How many sectors are not durable.
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        lock(&self.content).pending.len()
    }

    /// Cuts the power: of what is not durable, the sectors stay that `stays` says, by their number.
    #[cfg(test)]
    pub(crate) fn cut_power(&self, mut stays: impl FnMut(usize) -> bool) {
        let mut content = lock(&self.content);
        content.left = None;
        content.faults.clear();
        content.latch = SyncLatch::default();
        let pending = std::mem::take(&mut content.pending);
        for (_, (at, bytes)) in pending.into_iter().enumerate().filter(|(number, _)| stays(*number)) {
            put(&mut content.durable, at, &bytes);
        }
        content.now = content.durable.clone();
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let length = content.len().max(at + bytes.len());
    content.resize(length, 0);
    content[at..][..bytes.len()].copy_from_slice(bytes);
}

impl Storage for Memory {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut content = lock(&self.content);
        content.judge(Fault::Read)?;
        let there =
            usize::try_from(offset).ok().and_then(|offset| content.now.get(offset..)).unwrap_or_default();
        let count = there.len().min(bytes.len());
        bytes[..count].copy_from_slice(&there[..count]);
        bytes[count..].fill(0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(bytes.len() as u64) > MOST {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let before = offset % self.block;
        if before != 0 || !(bytes.len() as u64).is_multiple_of(self.block) {
            // As direct I/O does it: what others write to these blocks meanwhile is lost.
            let length = (before + bytes.len() as u64).next_multiple_of(self.block);
            let mut blocks = vec![0; index(length)];
            self.read_at(&mut blocks, offset - before)?;
            std::thread::yield_now();
            blocks[index(before)..][..bytes.len()].copy_from_slice(bytes);
            return self.write_at(&blocks, offset - before);
        }
        let mut content = lock(&self.content);
        content.count()?;
        content.judge(Fault::Write)?;
        let mut at = index(offset);
        put(&mut content.now, at, bytes);
        let mut left = bytes;
        while !left.is_empty() {
            let (sector, rest) = left.split_at(left.len().min(SECTOR - at % SECTOR));
            content.pending.push((at, sector.to_vec()));
            at += sector.len();
            left = rest;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = lock(&self.content);
        content.latch.check()?;
        content.count()?;
        content.judge(Fault::Sync)?;
        if content.fails(Fault::CachedSync) {
            let pending = std::mem::take(&mut content.pending);
            for (at, bytes) in pending.into_iter().step_by(2) {
                put(&mut content.durable, at, &bytes);
            }
            return content.latch.note(Err(io::Error::other("a part of it is lost")));
        }
        content.durable = content.now.clone();
        content.pending.clear();
        Ok(())
    }

    fn free(&self, offset: u64, length: u64) -> io::Result<bool> {
        lock(&self.content).judge(Fault::Free)?;
        let end = (lock(&self.content).now.len() as u64).min(offset.saturating_add(length));
        if offset < end {
            self.write_at(&vec![0; index(end - offset)], offset)?;
        }
        Ok(true)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.content).now.len() as u64)
    }

    fn block(&self) -> u64 {
        self.block
    }
}
