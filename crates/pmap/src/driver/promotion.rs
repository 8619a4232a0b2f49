//! Making chunks large again when pressure has passed.

use super::service::serve_waiting;
use crate::transition::Vm;
use crate::transition::promote::promote_chunk;

/// Makes up to `most` small chunks large again; returns how many.
pub(crate) fn promote(vm: &Vm, most: usize) -> usize {
    let chunks = if vm.memory.huge_pages() { vm.memory.layout().chunks() } else { 0 };
    let numbers = vm.memory.layout().chunk_numbers().take(chunks);
    let promoted = numbers.filter(|&no| promote_chunk(vm, no)).take(most).count();
    serve_waiting(vm);
    promoted
}
