//! Serving the faults that wait, and telling the source of grants. Called without any lock.

use plimsoll_units::Pages;

use crate::page::Touch;
use crate::transition::Vm;
use crate::transition::provide::populate;

/// Serves waiting faults, as far as the grant goes, and reports what is still wanted. Every driver
/// that makes room calls it, without any lock.
pub(crate) fn serve_waiting(vm: &Vm) {
    loop {
        // A statement of its own: the guard of the account must be gone before a chunk is locked.
        let reservation = vm.account().next_reservation();
        let Some(reservation) = reservation else { break };
        let mut chunk = vm.chunk(reservation.chunk);
        populate(vm, reservation.chunk, &mut chunk, &reservation.pages, reservation.reserved, Touch::Unknown);
    }
    vm.ledger.report_wanted();
}

/// Serves waiting faults from `freed` pages, and reports that there may be more than they need.
pub(crate) fn serve_freed(vm: &Vm, freed: Pages) {
    serve_waiting(vm);
    if freed > Pages::ZERO {
        vm.ledger.report_freed();
    }
}
