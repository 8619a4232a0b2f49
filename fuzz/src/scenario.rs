//! Scenarios of `plimsoll plan`, and recorded traces that they name.

use plimsoll_sim::{Changed, Scenario, Simulation};
use plimsoll_units::Pages;

/// Steps that are simulated: boots, and the first decisions about memory.
const STEPS: u32 = 20;
/// VMs of a scenario that is simulated.
const MOST_VMS: usize = 24;

/// Reads the scenario in `input`, up to a zero; what is behind is the file that it names. One that
/// is accepted can be simulated, and all that VMs hold is memory of the host.
pub(crate) fn scenario(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (text, trace) = text.split_once('\0').unwrap_or((text, ""));
    let mut scenario = match Scenario::from_toml(text, &|_| Ok(trace.to_owned())) {
        Ok(scenario) => scenario,
        Err(error) => return assert!(!error.is_empty() && !error.contains('\n'), "{error:?} is one line"),
    };
    scenario.duration = scenario.duration.min(scenario.step * STEPS);
    if scenario.vms.len() > MOST_VMS {
        return;
    }
    let changes = scenario.changes.iter().filter_map(|change| match change.what {
        Changed::Memory(memory) => Some(memory),
        _ => None,
    });
    let most = Pages::floor(changes.chain([scenario.host.memory]).max().unwrap_or_default());
    let mut simulation = Simulation::new(scenario.clone());
    while simulation.step() {
        let frame = simulation.frame();
        assert!(simulation.free() <= most);
        for (vm, spec) in frame.vms.iter().zip(&scenario.vms) {
            let all = vm.allocated + vm.ballooned + vm.swapped;
            assert!(vm.held <= vm.allocated && all <= spec.size, "{vm:?} of {spec:?}");
        }
    }
}
