//! What the VMs got, beside the paper's figures and what policy alone gives.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};
use plimsoll_policy::Tax;
use plimsoll_units::Bytes;
use serde::Serialize;

use super::super::exact;
use super::super::lab::Timed;
use super::super::table::{self, Row, mb, pages_mb};
use super::inside::{DISK, FOR_VMS, Plan, Sample};
use crate::guests::dbench::Load;
use crate::guests::dbench_disk::DIVISOR;
use crate::stats::Spread;

const SUM: &str = "the paper's two VMs end with 344 MB of the 360";
const GAIN: &str = "the paper: over 30 %";
const EXACT: &str = "policy's answer for what the VMs are taken to use at the end";

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    figure: &'static str,
    plan: Plan,
    rows: Vec<Row>,
    /// The busy VM's throughput in MB/s at each tax.
    throughput: [Option<Spread>; 2],
    samples: Vec<Timed<Sample>>,
}

impl Report {
    pub(super) fn new(plan: Plan, samples: Vec<Timed<Sample>>) -> Self {
        let throughput = [0, 1].map(|phase| Spread::of(runs(&plan, &samples, phase), 2));
        let mut rows = Vec::new();
        for (phase, paper, what, remark) in [
            (0, [179.0, 179.0], ["idle VM, tax 0", "busy VM, tax 0"], [EXACT, ""]),
            (1, [101.0, 243.0], ["idle VM, tax 0.75", "busy VM, tax 0.75"], ["", SUM]),
        ] {
            let tax = if phase == 0 { Tax::NONE } else { Tax::DEFAULT };
            let [active, held] = settled(&plan, &samples, phase);
            let exact = exact::fig7(tax, active.map(|mb| Bytes(megabytes(mb))));
            for vm in 0..2 {
                rows.push(Row {
                    what: what[vm],
                    unit: "MB",
                    paper: Some(paper[vm]),
                    ours: held[vm],
                    exact: exact.get(vm).copied().map(pages_mb),
                    remark: remark[vm],
                });
            }
        }
        if let [Some(plain), Some(taxed)] = throughput {
            let ours = 100.0 * (taxed.median / plain.median.max(0.01) - 1.0);
            rows.push(Row {
                what: "busy VM's throughput, gain",
                unit: "%",
                paper: Some(30.0),
                ours,
                exact: None,
                remark: GAIN,
            });
        }
        Self { figure: "figure 7", plan, rows, throughput, samples }
    }

    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let mbs = |s: Option<Spread>| {
            s.map_or_else(|| "-".to_owned(), |s| format!("{} ({} to {})", s.median, s.min, s.max))
        };
        let Plan { phase, period, load: Load { clients, megabytes } } = self.plan;
        let (iops, bandwidth) = (DISK.operations.unwrap_or_default(), DISK.bandwidth.unwrap_or_default());
        format!(
            "{}\nOURS is what guests in the lab held in the second half of a phase of {phase} s, in a pool with a limit of {FOR_VMS}. The busy VM\n\
             runs dbench {clients} with files a {DIVISOR}th of their size: {} MB/s untaxed, {} taxed, in runs of {megabytes} MB. Each\n\
             VM's disk does {iops} requests and {bandwidth} a second, as disks of the paper's time: where a disk costs nothing, page cache\n\
             brings nothing. Scaled down: the paper's phases have half an hour, sampling periods of {period} s of the VM's running time\n\
             stand for its 30. Other load on this machine makes throughput less.",
            table::text(self.figure, &self.rows),
            mbs(self.throughput[0]),
            mbs(self.throughput[1])
        )
    }

    /// Every measurement.
    pub(super) fn csv(&self) -> String {
        let line = |t: &Timed<Sample>| match t.sample {
            Sample::Memory { seconds, held, entitled, active, .. } => {
                let vm = |name: &str, vm: usize| {
                    format!("{seconds:.1},{name},{},{},{},\n", held[vm].0, entitled[vm].0, active[vm].0)
                };
                vm("idle", 0) + &vm("busy", 1)
            }
            Sample::Run { to, .. } => format!("{to:.1},busy,,,,{:.3}\n", throughput(t)),
        };
        let head = "seconds,vm,held_bytes,entitlement_bytes,active_bytes,mb_per_second\n".to_owned();
        std::iter::once(head).chain(self.samples.iter().map(line)).collect()
    }

    /// Allocations and throughput over time.
    pub(super) fn svg(&self) -> String {
        let times = |n: f64| format!("{n:.0} s");
        let axis = Axis { from: 0.0, to: f64::from(self.plan.phase) * 2.0, parts: 6, words: &times };
        let mut drawing = Drawing::new(
            "An idle and a busy VM; idle memory is taxed from the middle on (Waldspurger 2002, figure 7)",
            axis,
        );
        let memory = |pick: fn([Bytes; 2], [Bytes; 2]) -> Bytes| {
            let point = move |t: &Timed<Sample>| match t.sample {
                Sample::Memory { seconds, held, active, .. } => Some((seconds, mb(pick(held, active)))),
                Sample::Run { .. } => None,
            };
            self.samples.iter().filter_map(point).collect::<Vec<_>>()
        };
        let curve = |name, points| Curve { name, points, marks: false };
        let curves = [
            curve("idle has", memory(|held, _| held[0])),
            curve("busy has", memory(|held, _| held[1])),
            curve("idle uses", memory(|_, active| active[0])),
            curve("busy uses", memory(|_, active| active[1])),
        ];
        let amounts = |n: f64| format!("{n:.0} MB");
        drawing.panel(&Panel { title: "Memory", curves: &curves, most: 256.0, words: &amounts });
        let run = |t: &Timed<Sample>| match t.sample {
            Sample::Run { from, to, .. } => Some((f64::midpoint(from, to), throughput(t))),
            Sample::Memory { .. } => None,
        };
        let curves =
            [Curve { name: "dbench", points: self.samples.iter().filter_map(run).collect(), marks: true }];
        let most = curves[0].most().max(1.0).ceil();
        let mbs = |n: f64| format!("{n:.1} MB/s");
        drawing.panel(&Panel { title: "The busy VM's throughput", curves: &curves, most, words: &mbs });
        drawing.finish()
    }
}

/// Whether a time is in the second half of a phase, when what the tax changed has settled.
fn is_settled(plan: &Plan, phase: usize, seconds: f64) -> bool {
    let begin = if phase == 0 { 0.0 } else { f64::from(plan.phase) };
    seconds >= begin + f64::from(plan.phase) / 2.0
}

/// What the VMs are taken to use, and what they hold, in MB: means.
fn settled(plan: &Plan, samples: &[Timed<Sample>], wanted: usize) -> [[f64; 2]; 2] {
    let (mut sums, mut count) = ([[0.0; 2]; 2], 0.0_f64);
    for timed in samples {
        let Sample::Memory { seconds, phase, held, active, .. } = timed.sample else { continue };
        if phase == wanted && is_settled(plan, phase, seconds) {
            count += 1.0;
            for vm in 0..2 {
                sums[0][vm] += mb(active[vm]);
                sums[1][vm] += mb(held[vm]);
            }
        }
    }
    sums.map(|two| two.map(|sum| sum / count.max(1.0)))
}

/// Throughputs of the runs that lie in the second half of a phase.
fn runs(plan: &Plan, samples: &[Timed<Sample>], wanted: usize) -> impl Iterator<Item = f64> {
    samples.iter().filter_map(move |timed| match timed.sample {
        Sample::Run { from, phase, .. } if phase == wanted && is_settled(plan, phase, from) => {
            Some(throughput(timed))
        }
        _ => None,
    })
}

/// In MB/s.
fn throughput(timed: &Timed<Sample>) -> f64 {
    match timed.sample {
        // The time of the clock: a guest that waits for its disk takes no processor time.
        Sample::Run { moved, .. } => moved / timed.took.max(0.001),
        Sample::Memory { .. } => 0.0,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred MB")]
fn megabytes(mb: f64) -> u64 {
    (mb.max(0.0) * f64::from(1 << 20)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_of_each_phase_counts() {
        let plan = Plan { phase: 100, period: 3, load: Load { clients: 40, megabytes: 10 } };
        let memory = |seconds: f64, phase, idle, busy| Timed {
            sample: Sample::Memory {
                seconds,
                phase,
                held: [Bytes::mib(idle), Bytes::mib(busy)],
                entitled: [Bytes::mib(180); 2],
                active: [Bytes::mib(10), Bytes::mib(200)],
            },
            ran: 1.0,
            took: 1.0,
        };
        let run = |from: f64, phase, moved| Timed {
            sample: Sample::Run { from, to: from + 10.0, phase, moved },
            ran: 0.5,
            took: 10.0,
        };
        let samples = vec![
            memory(10.0, 0, 256, 90),
            memory(60.0, 0, 180, 180),
            run(20.0, 0, 1.0),
            run(70.0, 0, 5.0),
            memory(110.0, 1, 180, 180),
            memory(190.0, 1, 108, 252),
            run(160.0, 1, 7.0),
        ];
        let report = Report::new(plan, samples);
        let ours: Vec<f64> = report.rows.iter().map(|row| row.ours.round()).collect();
        assert_eq!(ours, [180.0, 180.0, 108.0, 252.0, 40.0]);
        let exact: Vec<f64> = report.rows.iter().filter_map(|row| row.exact).map(f64::round).collect();
        assert_eq!(exact.len(), 4);
        assert!((exact[0] - 180.0).abs() < 1.0 && exact[3] > 240.0, "{exact:?}");
        assert!(report.csv().contains("80.0,busy,,,,0.500\n"), "{}", report.csv());
        assert_eq!(report.svg().matches("<polyline").count(), 5);
    }
}
