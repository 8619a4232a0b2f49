//! Medians, beside the paper's figures.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};
use serde::Serialize;

use super::super::lab::Timed;
use super::inside::{FULL, Plan, SIZES, Sample};
use crate::guests::dbench::Load;
use crate::guests::dbench_disk::DIVISOR;
use crate::stats::Spread;

/// What the paper shows, in MB and MB/s: a size, ballooned down to it, configured with it.
const PAPER: [(u64, Option<f64>, f64); 5] = [
    (128, Some(10.96), 11.47),
    (160, Some(13.46), 13.70),
    (192, Some(15.29), 15.63),
    (224, Some(16.80), 17.04),
    (256, None, 17.80),
];

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    figure: &'static str,
    plan: Plan,
    rows: Vec<Row>,
    samples: Vec<Timed<Sample>>,
}

/// One size. Throughputs are in MB/s, losses in percent of what the configured VM does.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    mb: u64,
    paper_ballooned: Option<f64>,
    paper_configured: f64,
    paper_loss: Option<f64>,
    ballooned: Option<Spread>,
    configured: Option<Spread>,
    loss: Option<Spread>,
}

impl Report {
    pub(super) fn new(plan: Plan, samples: Vec<Timed<Sample>>) -> Self {
        let row = |(mb, paper_ballooned, paper_configured)| {
            let of = |ballooned: bool| {
                let wanted =
                    samples.iter().filter(move |t| t.sample.mb == mb && t.sample.ballooned == ballooned);
                wanted.map(|t| (t.sample.round, throughput(t)))
            };
            // Each pair was measured one right after the other.
            let losses = of(true).filter_map(|(round, ballooned)| {
                let (_, configured) = of(false).find(|(other, _)| *other == round)?;
                Some(loss(ballooned, configured))
            });
            Row {
                mb,
                paper_ballooned,
                paper_configured,
                paper_loss: paper_ballooned.map(|ballooned| loss(ballooned, paper_configured)),
                ballooned: Spread::of(of(true).map(|(_, mbs)| mbs), 2),
                configured: Spread::of(of(false).map(|(_, mbs)| mbs), 2),
                loss: Spread::of(losses, 1),
            }
        };
        Self { figure: "figure 2", plan, rows: PAPER.map(row).to_vec(), samples }
    }

    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let number = |n: Option<f64>, digits| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.digits$}"));
        let spread = |s: Option<Spread>, digits| match s {
            None => "-".to_owned(),
            Some(s) => format!("{:.digits$} ({:.digits$} to {:.digits$})", s.median, s.min, s.max),
        };
        let mut lines = vec![
            format!("{:10}{:>32}    OURS, median (least to most)", "figure 2", "PAPER"),
            format!(
                "{:>4}{:>14}{:>12}{:>10}{:>26}{:>24}{:>24}",
                "MB", "configured", "ballooned", "loss %", "configured", "ballooned", "loss %"
            ),
        ];
        for row in &self.rows {
            lines.push(format!(
                "{:>4}{:>14}{:>12}{:>10}{:>26}{:>24}{:>24}",
                row.mb,
                number(Some(row.paper_configured), 2),
                number(row.paper_ballooned, 2),
                number(row.paper_loss, 1),
                spread(row.configured, 2),
                spread(row.ballooned, 2),
                spread(row.loss, 1)
            ));
        }
        let Plan { rounds, load: Load { clients, megabytes } } = self.plan;
        lines.push(format!(
            "MB/s of dbench {clients}, in {rounds} rounds. Ours is scaled down for emulation: runs of {megabytes} MB, and the clients' files have a\n\
             {DIVISOR}th of their recorded size. Only the losses and the course compare with the paper's machine: a second is one for\n\
             which the lab had a processor of this machine, and the guests' disks lie in the lab's memory."
        ));
        lines.join("\n")
    }

    /// Every run.
    pub(super) fn csv(&self) -> String {
        let line = |t: &Timed<Sample>| {
            let Sample { round, mb, ballooned, moved } = t.sample;
            let how = if ballooned { "ballooned" } else { "configured" };
            format!("{round},{mb},{how},{:.3},{moved:.1},{:.2},{:.2}\n", throughput(t), t.ran, t.took)
        };
        let head = "round,mb,how,mb_per_second,mb_moved,lab_seconds,seconds\n".to_owned();
        std::iter::once(head).chain(self.samples.iter().map(line)).collect()
    }

    /// Medians over size.
    pub(super) fn svg(&self) -> String {
        let mb = |n: f64| format!("{n:.0} MB");
        let mbs = |n: f64| format!("{n:.1} MB/s");
        #[expect(clippy::cast_precision_loss, reason = "some hundred MB")]
        let curve = |name, value: &dyn Fn(&Row) -> Option<f64>| Curve {
            name,
            points: self.rows.iter().filter_map(|row| Some((row.mb as f64, value(row)?))).collect(),
            marks: true,
        };
        #[expect(clippy::cast_precision_loss, reason = "some hundred MB")]
        let axis = Axis { from: SIZES[0] as f64, to: FULL as f64, parts: 4, words: &mb };
        let median = |s: Option<Spread>| s.map(|s| s.median);
        let ours = [
            curve("configured", &|row| median(row.configured)),
            curve("ballooned", &|row| median(row.ballooned)),
        ];
        let paper = [
            curve("configured", &|row| Some(row.paper_configured)),
            curve("ballooned", &|row| row.paper_ballooned),
        ];
        let mut drawing =
            Drawing::new("dbench in a VM configured with a size, and ballooned down to it", axis);
        for (title, curves) in [("Plimsoll", &ours), ("Waldspurger 2002, figure 2", &paper)] {
            let most = curves.iter().map(Curve::most).fold(1.0, f64::max).ceil();
            drawing.panel(&Panel { title, curves, most, words: &mbs });
        }
        drawing.finish()
    }
}

/// In MB/s.
fn throughput(timed: &Timed<Sample>) -> f64 {
    timed.rate(timed.sample.moved)
}

/// In percent.
fn loss(ballooned: f64, configured: f64) -> f64 {
    if configured > 0.0 { 100.0 * (1.0 - ballooned / configured) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, mb: u64, ballooned: bool, moved: f64, ran: f64) -> Timed<Sample> {
        Timed { sample: Sample { round, mb, ballooned, moved }, ran, took: 2.0 * ran }
    }

    #[test]
    fn losses_are_of_pairs_and_time_that_others_took_does_not_count() {
        let samples = vec![
            sample(1, 128, false, 100.0, 10.0),
            sample(1, 128, true, 90.0, 10.0),
            sample(2, 128, false, 120.0, 10.0),
            sample(2, 128, true, 240.0, 20.0),
            sample(1, 256, false, 200.0, 10.0),
        ];
        let report = Report::new(Plan { rounds: 2, load: Load { clients: 40, megabytes: 100 } }, samples);
        let row = report.rows[0];
        assert_eq!(row.configured, Some(Spread { median: 11.0, min: 10.0, max: 12.0 }));
        assert_eq!(row.loss, Some(Spread { median: 5.0, min: 0.0, max: 10.0 }));
        assert_eq!((row.paper_loss.map(f64::round), report.rows[4].paper_loss), (Some(4.0), None));
        let text = report.text();
        assert!(text.contains("11.00 (10.00 to 12.00)") && text.contains("5.0 (0.0 to 10.0)"), "{text}");
        assert!(report.csv().contains("2,128,configured,12.000,120.0,10.00,20.00\n"), "{}", report.csv());
        assert_eq!(report.svg().matches("<polyline").count(), 4);
    }
}
