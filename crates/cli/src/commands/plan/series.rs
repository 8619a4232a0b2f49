use plimsoll_sim::{Course, Frame, Scenario, VmFrame};
use plimsoll_units::{Bytes, Pages};

/// An amount over time.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// In bytes, one a frame.
    pub(super) values: Vec<f64>,
}

/// VMs of one count and their amounts over time: means over those that run.
pub(super) struct Group {
    pub(super) name: String,
    /// Positions of its VMs in the scenario.
    pub(super) vms: Vec<usize>,
    pub(super) series: Vec<Series>,
}

impl Series {
    fn new(name: &'static str, frames: &[Frame], value: impl Fn(&Frame) -> f64) -> Self {
        Self { name, values: frames.iter().map(value).collect() }
    }

    pub(super) fn most(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }

    /// Means of `n` spans of equal length.
    pub(super) fn in_spans(&self, n: usize) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "some hundred values")]
        let mean = |span: &[f64]| span.iter().sum::<f64>() / span.len().max(1) as f64;
        spans(self.values.len(), n).map(|span| mean(self.values.get(span).unwrap_or(&[]))).collect()
    }
}

/// `n` spans of equal length, each with one at least, of `len` things.
pub(super) fn spans(len: usize, n: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..n).map(move |i| {
        let from = i * len / n;
        from..((i + 1) * len / n).max(from + 1).min(len)
    })
}

/// The host's amounts. Those that never reach a MiB are left out.
pub(super) fn of_host(course: &Course) -> Vec<Series> {
    let series =
        |name, value: fn(&Frame) -> Pages| Series::new(name, &course.frames, |f| number(value(f).bytes()));
    let all = [
        series("free", |f| f.free),
        series("active", |f| f.sums().active),
        series("held", |f| f.sums().held),
        series("balloon", |f| f.sums().ballooned),
        series("shared", |f| f.sums().saved),
        series("swap", |f| f.sums().swapped),
        series("short", |f| f.sums().short),
    ];
    all.into_iter().filter(|s| s.most() >= f64::from(1 << 20) || s.name == "free").collect()
}

/// The groups of VMs, in the scenario's order.
pub(super) fn of_groups(scenario: &Scenario, course: &Course) -> Vec<Group> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (i, vm) in scenario.vms.iter().enumerate() {
        match groups.iter_mut().find(|(name, _)| *name == vm.group) {
            Some((_, vms)) => vms.push(i),
            None => groups.push((vm.group.clone(), vec![i])),
        }
    }
    let group = |(name, vms): (String, Vec<usize>)| {
        let series = |name, value: fn(&VmFrame) -> Pages| {
            Series::new(name, &course.frames, |f| mean_of(f, &vms, value))
        };
        let series = vec![
            series("backed", |v| v.allocated),
            series("entitled", |v| v.entitlement),
            series("active", |v| v.active),
            series("balloon", |v| v.ballooned),
        ];
        Group { name, vms, series }
    };
    groups.into_iter().map(group).collect()
}

fn mean_of(frame: &Frame, vms: &[usize], value: fn(&VmFrame) -> Pages) -> f64 {
    let on = vms.iter().filter_map(|&i| frame.vms.get(i)).filter(|vm| vm.on);
    let (sum, count) = on.fold((0.0, 0.0), |(s, n), vm| (s + number(value(vm).bytes()), n + 1.0));
    if count == 0.0 { 0.0 } else { sum / count }
}

#[expect(clippy::cast_precision_loss, reason = "for charts")]
fn number(bytes: Bytes) -> f64 {
    bytes.0 as f64
}

/// An amount of a chart in words.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative; whole MiB are shown"
)]
pub(super) fn words(bytes: f64) -> String {
    Bytes(((bytes / f64::from(1 << 20)).round() as u64) << 20).to_string()
}

/// Pages in words, in whole MiB.
pub(super) fn mib(pages: Pages) -> String {
    words(number(pages.bytes()))
}
