use std::collections::BTreeMap;

use plimsoll_sim::{Course, Frame, Peaks, STATES, Scenario, Spread, VmTotals};
use plimsoll_units::{Bytes, Pages};
use serde::Serialize;

/// A course as JSON: times in seconds, amounts in bytes.
#[derive(Serialize)]
pub(super) struct Facts<'a> {
    title: &'a str,
    seed: u64,
    duration_seconds: f64,
    /// Seconds in each state.
    states: BTreeMap<String, f64>,
    peaks: Amounts,
    swapped_out: Bytes,
    swapped_in: Bytes,
    vms: Vec<Vm<'a>>,
    events: Vec<Event<'a>>,
    course: Vec<Host>,
}

#[derive(Serialize)]
struct Amounts {
    active: Bytes,
    held: Bytes,
    backed: Bytes,
    ballooned: Bytes,
    shared: Bytes,
    swapped: Bytes,
    short: Bytes,
}

#[derive(Serialize)]
struct Host {
    seconds: f64,
    state: String,
    free: Bytes,
    overhead: Bytes,
    frames: Bytes,
    #[serde(flatten)]
    sums: Amounts,
}

#[derive(Serialize)]
struct Vm<'a> {
    name: &'a str,
    size: Bytes,
    ran_seconds: f64,
    waited_seconds: f64,
    short_seconds: f64,
    backed: LeastToMost,
    held: LeastToMost,
    entitlement: LeastToMost,
    active: LeastToMost,
    lacked: LeastToMost,
    ballooned: LeastToMost,
    swapped: LeastToMost,
}

#[derive(Serialize)]
struct LeastToMost {
    least: Bytes,
    mean: Bytes,
    most: Bytes,
}

#[derive(Serialize)]
struct Event<'a> {
    seconds: f64,
    vm: &'a str,
    text: &'a str,
}

impl<'a> Facts<'a> {
    pub(super) fn new(scenario: &'a Scenario, course: &'a Course) -> Self {
        let states = STATES.iter().zip(course.in_state);
        let vms = scenario.vms.iter().zip(&course.vms);
        let events = course.events.iter();
        Self {
            title: &scenario.title,
            seed: scenario.seed,
            duration_seconds: scenario.duration.as_secs_f64(),
            states: states.map(|(s, t)| (format!("{s:?}").to_lowercase(), t.as_secs_f64())).collect(),
            peaks: Amounts::new(&course.peaks),
            swapped_out: course.swapped_out.bytes(),
            swapped_in: course.swapped_in.bytes(),
            vms: vms.map(|(spec, vm)| Vm::new(&spec.name, spec.size, vm)).collect(),
            events: events.map(|e| Event { seconds: e.at.as_secs_f64(), vm: &e.vm, text: &e.text }).collect(),
            course: course.frames.iter().map(Host::new).collect(),
        }
    }
}

impl Amounts {
    fn new(peaks: &Peaks) -> Self {
        Self {
            active: peaks.active.bytes(),
            held: peaks.held.bytes(),
            backed: peaks.allocated.bytes(),
            ballooned: peaks.ballooned.bytes(),
            shared: peaks.saved.bytes(),
            swapped: peaks.swapped.bytes(),
            short: peaks.short.bytes(),
        }
    }
}

impl Host {
    fn new(frame: &Frame) -> Self {
        Self {
            seconds: frame.at.as_secs_f64(),
            state: frame.state.to_string(),
            free: frame.free.bytes(),
            overhead: frame.overhead.bytes(),
            frames: frame.frames.bytes(),
            sums: Amounts::new(&frame.sums()),
        }
    }
}

impl<'a> Vm<'a> {
    fn new(name: &'a str, size: Pages, vm: &VmTotals) -> Self {
        let spread = |spread: &Spread| LeastToMost {
            least: if vm.ran.is_zero() { Bytes::ZERO } else { spread.least.bytes() },
            mean: vm.mean(spread).bytes(),
            most: spread.most.bytes(),
        };
        Self {
            name,
            size: size.bytes(),
            ran_seconds: vm.ran.as_secs_f64(),
            waited_seconds: vm.waited.as_secs_f64(),
            short_seconds: vm.short.as_secs_f64(),
            backed: spread(&vm.allocated),
            held: spread(&vm.held),
            entitlement: spread(&vm.entitlement),
            active: spread(&vm.active),
            lacked: spread(&vm.lack),
            ballooned: spread(&vm.ballooned),
            swapped: spread(&vm.swapped),
        }
    }
}
