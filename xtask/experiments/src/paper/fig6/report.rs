//! The estimate beside the truth.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};
use serde::Serialize;

use super::super::lab::Timed;
use super::super::table::mb;
use super::inside::{Plan, STEPS, Sample};

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    figure: &'static str,
    plan: Plan,
    rows: Vec<Row>,
    samples: Vec<Sample>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Row {
    /// What the toucher touches, in the paper and here, in MB.
    touched: u64,
    /// The estimate, in MB: the mean of the step's last third, when it has settled.
    estimate: f64,
    /// Seconds from the step's begin until the estimate is half way there; `None`: it never is.
    half_way: Option<f64>,
}

impl Report {
    pub(super) fn new(plan: Plan, measured: Vec<Timed<Sample>>) -> Self {
        let samples: Vec<Sample> = measured.into_iter().map(|t| t.sample).collect();
        let mut rows: Vec<Row> = Vec::new();
        for (number, touched) in STEPS.into_iter().enumerate() {
            let before = rows.last().map_or(0.0, |row| row.estimate);
            let step: Vec<(f64, f64)> = samples
                .iter()
                .filter(|sample| sample.step == number)
                .map(|sample| (sample.seconds - begin(&plan, number), mb(sample.active)))
                .collect();
            let settled = step.iter().filter(|(at, _)| *at >= f64::from(plan.step) * 2.0 / 3.0);
            let (sum, count) = settled.fold((0.0, 0.0_f64), |(sum, n), (_, active)| (sum + active, n + 1.0));
            let estimate = sum / count.max(1.0);
            let middle = f64::midpoint(before, estimate);
            let passed = |active: f64| if estimate > before { active >= middle } else { active <= middle };
            let half_way = step.iter().find(|(_, active)| passed(*active)).map(|(at, _)| *at);
            rows.push(Row { touched, estimate, half_way });
        }
        Self { figure: "figure 6", plan, rows, samples }
    }

    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:10}{:>12}{:>14}{:>20}",
            "figure 6", "TOUCHED MB", "ESTIMATE MB", "HALF WAY AFTER s"
        )];
        for row in &self.rows {
            let half_way = row.half_way.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
            lines.push(format!("{:10}{:>12}{:>14.0}{half_way:>20}", "", row.touched, row.estimate));
        }
        let means: Vec<String> = [true, false]
            .map(|up| {
                mean(
                    self.rows
                        .windows(2)
                        .filter(|two| (two[1].touched > two[0].touched) == up)
                        .filter_map(|two| two[1].half_way),
                )
            })
            .map(|mean| mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.1} s")))
            .to_vec();
        lines.push(format!(
            "TOUCHED is the paper's toucher and ours. In the paper the estimate follows up fast and down slowly; here it is half way up\n\
             after {} and half way down after {} on average. What the guest's kernel uses is in the estimate as well. Scaled down: steps\n\
             of {} s for the paper's 218, sampling periods of {} s of the VM's running time for its 30.",
            means[0], means[1], self.plan.step, self.plan.period
        ));
        lines.join("\n")
    }

    /// Every look.
    pub(super) fn csv(&self) -> String {
        let line =
            |s: &Sample| format!("{:.1},{},{},{}\n", s.seconds, STEPS[s.step] << 20, s.active.0, s.held.0);
        let head = "seconds,touched_bytes,active_bytes,held_bytes\n".to_owned();
        std::iter::once(head).chain(self.samples.iter().map(line)).collect()
    }

    /// Both over time.
    pub(super) fn svg(&self) -> String {
        let [times, amounts] = [|n: f64| format!("{n:.0} s"), |n: f64| format!("{n:.0} MB")];
        #[expect(clippy::cast_precision_loss, reason = "some hundred MB")]
        let truth = STEPS.into_iter().enumerate().flat_map(|(number, mb)| {
            [begin(&self.plan, number), begin(&self.plan, number + 1)].map(|at| (at, mb as f64))
        });
        let estimate = self.samples.iter().map(|s| (s.seconds, mb(s.active)));
        let curves = [
            Curve { name: "touched", points: truth.collect(), marks: false },
            Curve { name: "estimated", points: estimate.collect(), marks: false },
        ];
        let end = begin(&self.plan, STEPS.len());
        let axis = Axis { from: 0.0, to: end, parts: 11, words: &times };
        let mut drawing = Drawing::new(
            "A toucher's steps, and what its VM is taken to use (Waldspurger 2002, figure 6)",
            axis,
        );
        let most = (curves.iter().map(Curve::most).fold(1.0, f64::max) / 100.0).ceil() * 100.0;
        drawing.panel(&Panel { title: "Active memory", curves: &curves, most, words: &amounts });
        drawing.finish()
    }
}

/// When a step begins, in seconds.
fn begin(plan: &Plan, step: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "eleven steps")]
    let step = step as f64;
    f64::from(plan.step) * step
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    #[test]
    fn a_step_counts_by_where_the_estimate_settles() {
        let plan = Plan { step: 30, period: 3 };
        let looks = (0..STEPS.len()).flat_map(|step| {
            (0..30u32).map(move |second| {
                // The estimate reaches each step after ten seconds.
                let shown = if second < 10 { step.saturating_sub(1) } else { step };
                let seconds = begin(&plan, step) + f64::from(second);
                let active = Bytes::mib(STEPS[shown]);
                Timed { sample: Sample { seconds, step, active, held: Bytes::mib(300) }, ran: 1.0, took: 1.0 }
            })
        });
        let report = Report::new(plan, looks.collect());
        assert_eq!(report.rows[1], Row { touched: 50, estimate: 50.0, half_way: Some(10.0) });
        assert_eq!(report.rows[5], Row { touched: 200, estimate: 200.0, half_way: Some(10.0) });
        assert!(
            report.text().contains("half way up\nafter 10.0 s and half way down after 10.0 s"),
            "{}",
            report.text()
        );
        assert!(report.csv().lines().count() == 331 && report.svg().matches("<polyline").count() == 2);
    }
}
