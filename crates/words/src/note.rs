//! What is unusual about a VM.

use plimsoll_protocol::status::{BalloonHealth, Power, VmStatus};

use crate::local_time::to_the_second;

/// What is unusual about a VM, or why it is off.
pub fn note(vm: &VmStatus) -> String {
    if vm.power == Power::Off {
        let exit = vm.exit.as_ref().map(ToString::to_string);
        let notes: Vec<String> = exit.into_iter().chain(vm.note.clone()).collect();
        return if notes.is_empty() { "not started yet".to_owned() } else { notes.join("; ") };
    }
    let mut notes = Vec::new();
    if vm.model {
        notes.push("model".to_owned());
    }
    if let Some(stalled) = &vm.stalled {
        notes.push(format!("stalled since {}", to_the_second(stalled.since)));
    }
    if vm.balloon == BalloonHealth::Stuck && vm.power != Power::Paused {
        notes.push("balloon stuck".to_owned());
    }
    if vm.paging.blocked {
        notes.push("held: the host is in state low".to_owned());
    }
    if vm.paging.failed {
        notes.push("swap failed".to_owned());
    }
    if vm.sharing.mappings_full {
        notes.push("no mappings left to share".to_owned());
    }
    if vm.wanted.0 > 0 {
        notes.push(format!("waits for {}", vm.wanted));
    }
    if !vm.missing_jail.is_empty() {
        let parts: Vec<String> = vm.missing_jail.iter().map(ToString::to_string).collect();
        notes.push(format!("jail lacks {}", parts.join(", ")));
    }
    notes.extend(vm.note.clone());
    notes.join("; ")
}
