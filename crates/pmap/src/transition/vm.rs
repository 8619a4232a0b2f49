use crate::account::{AccountGuard, Ledger, Tally};
use crate::address::ChunkNo;
use crate::content::{Content, Frames};
use crate::memory::Memory;
use crate::page::{Chunk, ChunkGuard, Chunks, Probes, Touches};

/// What transitions work on: one VM's memory, its states, its content elsewhere, and its account.
pub(crate) struct Vm {
    pub(crate) memory: Memory,
    pub(crate) chunks: Chunks,
    pub(crate) content: Content,
    pub(crate) frames: Frames,
    pub(crate) ledger: Ledger,
    pub(crate) touches: Touches,
    pub(crate) probes: Probes,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Vm").field(&self.memory.range()).finish()
    }
}

impl Vm {
    /// Locks a chunk, which must be one of the layout's.
    pub(crate) fn chunk(&self, no: ChunkNo) -> ChunkGuard<'_> {
        self.chunks.lock(no)
    }

    pub(crate) fn account(&self) -> AccountGuard<'_> {
        self.ledger.account()
    }

    /// Records what became of a chunk that counted for `before`: see [`Ledger::record`].
    pub(crate) fn record(&self, before: Tally, chunk: &Chunk) -> plimsoll_units::Pages {
        self.ledger.record(before, chunk.tally())
    }
}
