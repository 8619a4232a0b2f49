//! The most memory that a VM's group may use. It follows the VM's grant: it is raised before the
//! VMM hears of a grant, and lowered some time after a return.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use plimsoll_machine::medium;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_units::{Bytes, Pages};

use super::at;
use crate::launch::disk::most as most_of_disk;

/// What a group may use beyond grant and overhead. The kernel counts in batches for each processor
/// (`BATCH`), and charges files that the VM reads, among them its disks: with less than some
/// megabytes of those a disk reads each block anew. More, and a VMM that a guest has taken over has
/// as much more of the host.
const SLACK: Bytes = Bytes::mib(32);
/// Pages that a processor may have charged ahead: the kernel's `MEMCG_CHARGE_BATCH`.
const BATCH: Pages = Pages(64);
/// A bound is lowered when the group uses this much less than the new one, so that the kernel need
/// not look for something to take, and ends no VMM that is right.
const MARGIN: Bytes = Bytes::mib(8);
/// Longest pause, in looks, after the kernel could not take enough back.
const LONGEST_PAUSE: u32 = 64;

/// The kernel's bound on the memory of one VMM.
#[derive(Debug)]
pub(crate) struct MemoryBound {
    group: PathBuf,
    /// `memory.max`, kept open: raising it must not fail for want of descriptors.
    max: File,
    /// What the group may use beside its grant.
    beside: Bytes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    grant: Pages,
    /// What `memory.max` says.
    written: Bytes,
    /// Looks to pass over, and how many it will be next time.
    pause: (u32, u32),
}

impl MemoryBound {
    /// Bounds `group`, which is empty, to `grant`.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub(super) fn new(group: PathBuf, definition: &VmDefinition, grant: Pages) -> io::Result<Self> {
        let bound = Self::open(group, beside(definition), grant)?;
        let most = bound.most(grant);
        bound.write(&mut bound.lock(), most)?;
        Ok(bound)
    }

    /// Goes on with the bound that an earlier daemon set, and that `set` changes next. Without
    /// `noted`, what that daemon had from [`Self::beside`], the VM's disks are looked at.
    ///
    /// # Errors
    /// As [`MemoryBound::new`].
    pub(super) fn adopt(group: PathBuf, definition: &VmDefinition, noted: Option<Bytes>) -> io::Result<Self> {
        let path = group.join("memory.max");
        let text = std::fs::read_to_string(&path).map_err(|e| at(&path, &e))?;
        // The word "max" is no bound.
        let written = text.trim().parse().map_or(Bytes(u64::MAX), Bytes);
        let beside = noted.unwrap_or_else(|| beside(definition));
        let bound = Self::open(group, beside, Pages::floor(written))?;
        bound.lock().written = written;
        Ok(bound)
    }

    /// What the group may use beside its grant.
    pub(crate) fn beside(&self) -> Bytes {
        self.beside
    }

    fn open(group: PathBuf, beside: Bytes, grant: Pages) -> io::Result<Self> {
        let path = group.join("memory.max");
        // A group of the kernel's has the file; one in a test does not.
        let max = OpenOptions::new().write(true).create(cfg!(test)).truncate(false).open(&path);
        Ok(Self {
            max: max.map_err(|e| at(&path, &e))?,
            group,
            beside,
            state: Mutex::new(State { grant, written: Bytes::ZERO, pause: (0, 1) }),
        })
    }

    /// The VMM may hold `grant` from now on. A higher bound is there when this returns.
    pub(crate) fn set(&self, grant: Pages) {
        let mut state = self.lock();
        state.grant = grant;
        let most = self.most(grant);
        if most > state.written {
            state.pause = (0, 1);
            if let Err(e) = self.write(&mut state, most) {
                tracing::error!("the bound of memory cannot be raised, and the VM may be ended for it: {e}");
            }
        }
    }

    /// Lowers the bound to what the VMM may hold. Where the group uses more, such as for files, the
    /// kernel is asked to take that back, which may take long; the bound follows at a later call.
    pub(crate) fn lower(&self) {
        let Some(excess) = self.lowered() else { return };
        let path = self.group.join("memory.reclaim");
        // It fails where there was less to take; the next look tells.
        std::fs::write(path, excess.0.to_string()).ok();
    }

    /// Lowers the bound if the group uses less than the new one. Returns by how much it uses more.
    fn lowered(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let most = self.most(state.grant);
        if most >= state.written {
            return None;
        }
        if state.pause.0 > 0 {
            state.pause.0 -= 1;
            return None;
        }
        let text = std::fs::read_to_string(self.group.join("memory.current")).ok()?;
        let needed = Bytes(text.trim().parse().ok()?) + MARGIN;
        if needed > most {
            let next = state.pause.1;
            state.pause = (next, LONGEST_PAUSE.min(2 * next));
            return Some(needed - most);
        }
        state.pause = (0, 1);
        if let Err(e) = self.write(&mut state, most) {
            tracing::warn!("the bound of memory cannot be lowered: {e}");
        }
        None
    }

    fn most(&self, grant: Pages) -> Bytes {
        grant.bytes().saturating_add(self.beside)
    }

    fn write(&self, state: &mut State, most: Bytes) -> io::Result<()> {
        let written = self.max.write_all_at(most.0.to_string().as_bytes(), 0);
        written.map_err(|e| at(&self.group.join("memory.max"), &e))?;
        state.written = most;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        plimsoll_sys::lock(&self.state)
    }
}

/// What a VM's group may use beside its grant.
fn beside(definition: &VmDefinition) -> Bytes {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let batches = Pages(BATCH.0 * processors).bytes();
    definition.overhead().bytes() + SLACK + batches + disks_in_memory(definition)
}

/// What a VM's disks take of memory when they are full, those that are files in memory: the kernel
/// charges what a guest writes there to the group, and can take none of it back.
fn disks_in_memory(definition: &VmDefinition) -> Bytes {
    let written = definition.disks.iter().filter(|disk| !disk.read_only);
    let lengths = written.filter(|disk| medium::memory_under(&disk.path).is_some()).filter_map(most_of_disk);
    lengths.fold(Bytes::ZERO, Bytes::saturating_add)
}
