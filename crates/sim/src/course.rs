use std::time::Duration;

use plimsoll_policy::State;
use plimsoll_units::{Bytes, Pages};

use crate::scenario::Scenario;

/// The five states, from plenty to none.
pub const STATES: [State; 5] = [State::High, State::Clear, State::Soft, State::Hard, State::Low];

/// What happened in a scenario.
#[derive(Clone, Debug)]
pub struct Course {
    /// Looks at the host, `every` apart.
    pub frames: Vec<Frame>,
    /// From one frame to the next.
    pub every: Duration,
    /// How long the host was in each of [`STATES`].
    pub in_state: [Duration; 5],
    /// The largest of each amount, over all steps.
    pub peaks: Peaks,
    /// Each VM over all its steps, in the scenario's order.
    pub vms: Vec<VmTotals>,
    /// What happened to VMs.
    pub events: Vec<Event>,
    /// Written to swap and read from it.
    pub swapped_out: Pages,
    /// See `swapped_out`.
    pub swapped_in: Pages,
}

/// The host at one time.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Since the scenario began.
    pub at: Duration,
    /// Its state.
    pub state: State,
    /// Free machine memory.
    pub free: Pages,
    /// Machine memory of VMMs.
    pub overhead: Pages,
    /// Frames of shared pages.
    pub frames: Pages,
    /// The VMs, in the scenario's order.
    pub vms: Vec<VmFrame>,
}

/// A VM at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmFrame {
    /// It runs.
    pub on: bool,
    /// It stands still because it gets no memory.
    pub waits: bool,
    /// What its guest uses.
    pub active: Pages,
    /// What policy takes it to use.
    pub estimate: Pages,
    /// Machine pages of its own.
    pub held: Pages,
    /// Pages that its guest finds backed: its own and shared ones.
    pub allocated: Pages,
    /// Pages shared with the zero page.
    pub zero: Pages,
    /// Pages shared with other VMs.
    pub common: Pages,
    /// Pages in its balloon.
    pub ballooned: Pages,
    /// Pages on swap.
    pub swapped: Pages,
    /// What it is entitled to.
    pub entitlement: Pages,
    /// What its mechanisms steer to.
    pub target: Pages,
    /// What its guest wants to touch and cannot, because it is ballooned, on swap or waited for.
    pub short: Pages,
}

/// Amounts summed over all VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// See [`VmFrame`].
    pub active: Pages,
    /// See [`VmFrame`].
    pub held: Pages,
    /// See [`VmFrame`].
    pub allocated: Pages,
    /// What sharing saves: zero pages, and common pages less their frames.
    pub saved: Pages,
    /// Of it zero pages.
    pub zero: Pages,
    /// See [`VmFrame`].
    pub ballooned: Pages,
    /// See [`VmFrame`].
    pub swapped: Pages,
    /// See [`VmFrame`].
    pub short: Pages,
}

impl Peaks {
    fn raise(&mut self, now: &Self) {
        let pairs = [
            (&mut self.active, now.active),
            (&mut self.held, now.held),
            (&mut self.allocated, now.allocated),
            (&mut self.saved, now.saved),
            (&mut self.zero, now.zero),
            (&mut self.ballooned, now.ballooned),
            (&mut self.swapped, now.swapped),
            (&mut self.short, now.short),
        ];
        for (peak, now) in pairs {
            *peak = now.max(*peak);
        }
    }
}

impl Frame {
    /// The sums over all VMs.
    pub fn sums(&self) -> Peaks {
        let sum = |part: fn(&VmFrame) -> Pages| self.vms.iter().map(part).sum::<Pages>();
        let (zero, common) = (sum(|v| v.zero), sum(|v| v.common));
        Peaks {
            active: sum(|v| v.active),
            held: sum(|v| v.held),
            allocated: sum(|v| v.allocated),
            saved: zero + common.saturating_sub(self.frames),
            zero,
            ballooned: sum(|v| v.ballooned),
            swapped: sum(|v| v.swapped),
            short: sum(|v| v.short),
        }
    }
}

/// A VM over the time that it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VmTotals {
    /// How long it ran.
    pub ran: Duration,
    /// How long it stood still for memory.
    pub waited: Duration,
    /// How long it could not touch all that it wanted, by more than a hundredth of its size.
    pub short: Duration,
    /// The least, the sum over all steps and the most that its guest found backed.
    pub allocated: Spread,
    /// What it held of its own.
    pub held: Spread,
    /// What it was entitled to.
    pub entitlement: Spread,
    /// What it used.
    pub active: Spread,
    /// What it lacked.
    pub lack: Spread,
    /// Its balloon.
    pub ballooned: Spread,
    /// Its pages on swap.
    pub swapped: Spread,
    steps: u64,
}

/// The least, mean and most of an amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: Pages,
    /// The most.
    pub most: Pages,
    sum: u128,
}

impl Default for Spread {
    fn default() -> Self {
        Self { least: Pages(u64::MAX), most: Pages::ZERO, sum: 0 }
    }
}

impl Spread {
    fn add(&mut self, pages: Pages) {
        self.least = self.least.min(pages);
        self.most = self.most.max(pages);
        self.sum += u128::from(pages.0);
    }
}

impl VmTotals {
    /// The mean of `spread`, one of this VM's.
    pub fn mean(&self, spread: &Spread) -> Pages {
        Pages(u64::try_from(spread.sum / u128::from(self.steps.max(1))).unwrap_or(u64::MAX))
    }

    fn add(&mut self, vm: &VmFrame, size: Pages, step: Duration) {
        self.steps += 1;
        self.ran += step;
        if vm.waits {
            self.waited += step;
        }
        if vm.short.0 > size.0 / 100 {
            self.short += step;
        }
        for (spread, now) in [
            (&mut self.allocated, vm.allocated),
            (&mut self.held, vm.held),
            (&mut self.entitlement, vm.entitlement),
            (&mut self.active, vm.active),
            (&mut self.lack, vm.short),
            (&mut self.ballooned, vm.ballooned),
            (&mut self.swapped, vm.swapped),
        ] {
            spread.add(now);
        }
    }
}

/// Something that happened to a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the scenario began.
    pub at: Duration,
    /// The VM.
    pub vm: String,
    /// What happened.
    pub text: String,
}

/// Writes a course down.
pub(crate) struct Recorder {
    course: Course,
    step: Duration,
    next: Duration,
    sizes: Vec<Pages>,
}

/// Frames of a course: some for each column of a chart that is as wide as a screen.
const FRAMES: u32 = 400;

impl Recorder {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let steps = (scenario.steps() / u64::from(FRAMES)).max(1);
        let every = scenario.step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        let course = Course {
            frames: Vec::new(),
            every,
            in_state: [Duration::ZERO; 5],
            peaks: Peaks::default(),
            vms: vec![VmTotals::default(); scenario.vms.len()],
            events: Vec::new(),
            swapped_out: Pages::ZERO,
            swapped_in: Pages::ZERO,
        };
        let sizes = scenario.vms.iter().map(|vm| vm.size).collect();
        Self { course, step: scenario.step, next: Duration::ZERO, sizes }
    }

    pub(crate) fn event(&mut self, at: Duration, vm: &str, text: impl Into<String>) {
        self.course.events.push(Event { at, vm: vm.to_owned(), text: text.into() });
    }

    pub(crate) fn swapped(&mut self, out: Pages, back: Pages) {
        self.course.swapped_out += out;
        self.course.swapped_in += back;
    }

    pub(crate) fn frame(&mut self, frame: Frame) {
        for (totals, (vm, size)) in self.course.vms.iter_mut().zip(frame.vms.iter().zip(&self.sizes)) {
            if vm.on {
                totals.add(vm, *size, self.step);
            }
        }
        let state = STATES.iter().position(|s| *s == frame.state);
        if let Some(time) = state.and_then(|i| self.course.in_state.get_mut(i)) {
            *time += self.step;
        }
        self.course.peaks.raise(&frame.sums());
        if frame.at >= self.next {
            self.next += self.course.every;
            self.course.frames.push(frame);
        }
    }

    pub(crate) fn end(self) -> Course {
        self.course
    }
}

impl Course {
    /// The frame at `at`, or the last before it.
    pub fn at(&self, at: Duration) -> Option<&Frame> {
        let next = self.frames.partition_point(|f| f.at <= at);
        self.frames.get(next.saturating_sub(1))
    }

    /// The mean of `value` over the frames from `from` to before `to`; `None` where there are none.
    pub fn mean(&self, from: Duration, to: Duration, value: impl Fn(&Frame) -> Pages) -> Option<Bytes> {
        let values: Vec<u128> = self
            .frames
            .iter()
            .filter(|f| (from..to).contains(&f.at))
            .map(|f| u128::from(value(f).bytes().0))
            .collect();
        let count = u128::try_from(values.len()).ok().filter(|n| *n > 0)?;
        u64::try_from(values.iter().sum::<u128>() / count).ok().map(Bytes)
    }

    /// The part of the time in `state`, from 0 to 1.
    pub fn part_in(&self, state: State) -> f64 {
        let all: Duration = self.in_state.iter().sum();
        let i = STATES.iter().position(|s| *s == state);
        let time = i.and_then(|i| self.in_state.get(i)).copied().unwrap_or_default();
        if all.is_zero() { 0.0 } else { time.as_secs_f64() / all.as_secs_f64() }
    }
}
