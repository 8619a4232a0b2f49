use std::fmt::Write;

use plimsoll_sim::{COLUMNS, Course, Scenario};

/// What follows the columns that every recorded history has.
const MORE: &str =
    "target_bytes,estimate_bytes,backed_bytes,swapped_bytes,short_bytes,host_state,host_free_bytes";

/// The course of every VM while it runs, in the columns of a recorded history, which a scenario can
/// read again.
pub(super) fn text(scenario: &Scenario, course: &Course) -> String {
    let mut text = format!("{},{MORE}\n", COLUMNS.join(","));
    for frame in &course.frames {
        let state = format!("{:?}", frame.state).to_lowercase();
        for (spec, vm) in scenario.vms.iter().zip(&frame.vms).filter(|(_, vm)| vm.on) {
            let amounts = [
                vm.active,
                vm.held,
                vm.entitlement,
                vm.ballooned,
                vm.target,
                vm.estimate,
                vm.allocated,
                vm.swapped,
                vm.short,
            ];
            let amounts = amounts.map(|p| p.bytes().0.to_string()).join(",");
            let seconds = frame.at.as_secs_f64();
            // Writing to a string cannot fail.
            writeln!(text, "{seconds},{},{amounts},{state},{}", spec.name, frame.free.bytes().0).ok();
        }
    }
    text
}
