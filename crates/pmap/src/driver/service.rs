//! Serving the faults that wait, and telling the source of grants. Called without any lock.

use plimsoll_units::Pages;

use crate::page::Touch;
use crate::transition::Vm;
use crate::transition::provide::populate;

/// Serves those who wait, as far as the grant goes, and tells the source what is still wanted. Called, without
/// any lock, by whoever has made room.
pub(crate) fn serve_waiting(vm: &Vm) {
    loop {
        // A statement of its own: the account's lock is taken after a chunk's, never before.
        let turn = vm.account().next_turn();
        let Some(turn) = turn else { break };
        let mut chunk = vm.chunk(turn.chunk);
        populate(vm, turn.chunk, &mut chunk, &turn.pages, turn.reserved, Touch::Unknown);
    }
    vm.ledger.tell_source();
}

/// Serves those who wait from what was `freed`, and tells the source that there may be more than they need.
pub(crate) fn serve_freed(vm: &Vm, freed: Pages) {
    serve_waiting(vm);
    if freed > Pages::ZERO {
        vm.ledger.tell_freed();
    }
}
