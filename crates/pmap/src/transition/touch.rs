//! What a touch of memory shows, before it is answered.

use super::aside::{bring_chunk_back, bring_page_back};
use super::probe::probe;
use super::vm::Vm;
use crate::address::{Kind, Place, SLOTS};
use crate::page::{Activity, Backing, Chunk};

/// Notes that a fault has touched a page, before it is answered, and brings back what was aside
/// there. A chunk that is to be probed is. Step `BringBack`.
pub(crate) fn note_touch(vm: &Vm, place: Place, chunk: &mut Chunk) {
    chunk.activity = Activity::Unknown;
    let brought = if let Backing::Aside(spare) = chunk.backing {
        bring_chunk_back(&vm.memory, place.chunk, chunk).map(|()| Some(spare))
    } else {
        bring_page_back(&vm.memory, place, chunk)
    };
    match brought {
        Ok(None) => {}
        Ok(Some(spare)) => {
            chunk.activity = Activity::Used;
            match spare.kind() {
                Kind::Chunk => {
                    vm.touches.count_chunk();
                    probe(vm, place, chunk);
                    // Only now: a thread that ran on would touch what is about to be watched.
                    vm.memory.wake_run(place.chunk, (0, SLOTS));
                }
                Kind::Page => vm.touches.count_page(),
                Kind::Inside => vm.touches.count_inside(),
            }
            if let Backing::Small(table) = &mut chunk.backing {
                table.recent.insert(place.slot);
            }
        }
        Err(error) => {
            tracing::error!(%error, ppn = vm.memory.ppn(place).0, "cannot bring back what was put aside");
        }
    }
}
