//! All samples of a run as one drawing.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};

use super::report::Report;
use super::sample::Sample;

/// Parts that the numbers below the drawing divide it into.
const PARTS: u32 = 8;

/// An amount in words.
type Words<'a> = &'a dyn Fn(f64) -> String;
/// A curve's name, and what it shows of a sample.
type Series = (&'static str, fn(&Sample) -> f64);

const DAEMON_MEMORY: [Series; 3] = [
    ("PSS", |sample| sample.daemon.pss),
    ("anonymous", |sample| sample.daemon.anonymous),
    ("less history", |sample| sample.daemon.anonymous - sample.history),
];
const VMM_MEMORY: [Series; 2] =
    [("PSS", |sample| sample.lasting.pss), ("anonymous", |sample| sample.lasting.anonymous)];
const DAEMON_COUNTS: [Series; 2] =
    [("descriptors", |sample| sample.daemon.descriptors), ("mappings", |sample| sample.daemon.mappings)];
const VMM_COUNTS: [Series; 3] = [
    ("descriptors", |sample| sample.lasting.descriptors),
    ("mappings", |sample| sample.lasting.mappings),
    ("of the guest", |sample| sample.islands),
];
const ALL: [Series; 2] = [("PSS", |sample| sample.all.pss), ("anonymous", |sample| sample.all.anonymous)];
const FILES: [Series; 3] = [
    ("run", |sample| sample.run_files),
    ("run, KiB", |sample| sample.run_kib),
    ("state", |sample| sample.state_files),
];

/// Draws memory, descriptors, mappings and files over time.
pub(super) fn draw(report: &Report) -> String {
    let minutes = |sample: &Sample| sample.hours * 60.0;
    let end = report.samples.iter().map(minutes).fold(0.0, f64::max);
    let words = |at: f64| format!("{at:.0} min");
    let axis = Axis { from: 0.0, to: end, parts: PARTS, words: &words };
    let title =
        format!("{} VMs that come and go for {} minutes, seed {}", report.vms, report.minutes, report.seed);
    let mut drawing = Drawing::new(&title, axis);
    let mib = |amount: f64| format!("{amount:.1} MiB");
    let count = |amount: f64| format!("{amount:.0}");
    let panels: [(&str, &[Series], Words<'_>); 6] = [
        ("the daemon's memory", &DAEMON_MEMORY, &mib),
        ("memory of a lasting VMM, without its guest's", &VMM_MEMORY, &mib),
        ("memory of all VMMs, without their guests'", &ALL, &mib),
        ("the daemon's descriptors and mappings", &DAEMON_COUNTS, &count),
        ("descriptors and mappings of a lasting VMM", &VMM_COUNTS, &count),
        ("files in the run and state directories", &FILES, &count),
    ];
    for (title, series, words) in panels {
        let curve = |(name, of): &Series| {
            let points = report.samples.iter().map(|sample| (minutes(sample), of(sample))).collect();
            Curve { name, points, marks: false }
        };
        let curves: Vec<Curve<'_>> = series.iter().map(curve).collect();
        let most = curves.iter().map(Curve::most).fold(0.0, f64::max) * 1.1;
        drawing.panel(&Panel { title, curves: &curves, most, words });
    }
    drawing.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plimsoll_operate::remains::Remains;

    use super::super::sample::Part;
    use super::*;

    #[test]
    fn every_figure_has_a_curve() {
        let part = Part { pss: 2.0, anonymous: 1.0, descriptors: 20.0, mappings: 90.0, threads: 8.0 };
        let sample = |hours| Sample {
            hours,
            on: 4,
            daemon: part,
            history: 0.0,
            lasting: part,
            islands: 40.0,
            all: part,
            run_files: 9.0,
            run_kib: 3.0,
            state_files: 7.0,
        };
        let report = Report {
            seed: 3,
            minutes: 60,
            vms: 8,
            operations: BTreeMap::new(),
            wrong: Vec::new(),
            verdicts: Vec::new(),
            remains: Remains::default(),
            samples: vec![sample(0.5), sample(1.0)],
        };
        let text = draw(&report);
        assert_eq!(text.matches("<polyline").count(), 15);
        assert!(text.contains("seed 3") && text.contains("60 min") && !text.contains("NaN"), "{text}");
    }
}
