//! Content outside of guest memory: in the store, or in a slot of the swap.

use plimsoll_units::Pages;

use super::vm::Vm;
use crate::address::PAGE;
use crate::page::PageState;

/// The content of a page that is elsewhere, if it can be had without waiting; `None` for a page
/// that reads as zeros.
pub(crate) fn content_of(vm: &Vm, state: PageState) -> Option<Box<[u8; PAGE]>> {
    let zeros = || Box::new([0; PAGE]);
    match state {
        PageState::Compressed(handle) => {
            let mut page = zeros();
            vm.content.unpack(handle, &mut page);
            Some(page)
        }
        PageState::Leaving(slot) => {
            let mut page = zeros();
            let pending = vm.content.swap().is_some_and(|swap| swap.pending(slot, &mut page));
            assert!(pending, "what is written is kept until the page's state says that it is written");
            Some(page)
        }
        _ => None,
    }
}

/// Forgets the content of pages that were in `states` and are not any more; returns by how much the
/// store is smaller.
pub(crate) fn forget(vm: &Vm, states: impl IntoIterator<Item = PageState>) -> Pages {
    let mut handles = Vec::new();
    for state in states {
        match state {
            PageState::Compressed(handle) => handles.push(handle),
            PageState::Clean(slot)
            | PageState::Leaving(slot)
            | PageState::Swapped(slot)
            | PageState::Arriving { from: slot, .. } => {
                vm.content.free_slot(slot);
            }
            // A frame is given back by its page's number, once no device reads it.
            PageState::Absent
            | PageState::Zero
            | PageState::Ballooned
            | PageState::Private
            | PageState::Aside(_)
            | PageState::Shared(_) => {}
        }
    }
    if handles.is_empty() {
        return Pages::ZERO;
    }
    vm.content.in_store(&vm.ledger, Pages::ZERO, |store| {
        let before = store.pages();
        handles.into_iter().for_each(|handle| store.remove(handle));
        before.saturating_sub(store.pages())
    })
}
