//! What fleets share, beside the paper's production hosts.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};
use serde::Serialize;

use super::super::fleet::Picture;
use super::super::lab::Timed;
use super::super::table::mb;
use super::inside::Sample;

/// The paper's hosts: what they run, and in MB their memory and what of it is shared, reclaimed
/// and, as far as it says, zero.
const PAPER: [(&str, u32, [f64; 3], Option<f64>); 3] = [
    ("A: 10 Windows NT", 10, [2048.0, 880.0, 673.0], None),
    ("B: 9 Linux", 9, [1846.0, 539.0, 345.0], Some(70.0)),
    ("C: 5 Linux", 5, [1658.0, 165.0, 120.0], Some(25.0)),
];

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    figure: &'static str,
    rows: Vec<Row>,
    samples: Vec<Timed<Sample>>,
}

/// A fleet, or a host of the paper's. In MB, at work.
#[derive(Clone, Debug, Serialize)]
struct Row {
    what: String,
    paper: bool,
    guests: u32,
    total: f64,
    shared: f64,
    reclaimed: f64,
    zero: Option<f64>,
}

impl Report {
    pub(super) fn new(samples: Vec<Timed<Sample>>) -> Self {
        let paper = PAPER.iter().map(|&(what, guests, [total, shared, reclaimed], zero)| Row {
            what: what.to_owned(),
            paper: true,
            guests,
            total,
            shared,
            reclaimed,
            zero,
        });
        let ours = samples.iter().map(|Timed { sample: Sample { fleet, guests, working, .. }, .. }| Row {
            what: fleet.clone(),
            paper: false,
            guests: *guests,
            total: mb(working.memory),
            shared: mb(working.shared),
            reclaimed: mb(working.reclaimed),
            zero: Some(mb(working.zero)),
        });
        Self { figure: "figure 5", rows: paper.chain(ours).collect(), samples }
    }

    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:30}{:>6}{:>9}{:>16}{:>16}{:>12}",
            "figure 5", "VMs", "total", "shared", "reclaimed", "of it zero"
        )];
        for row in &self.rows {
            let whose = if row.paper { "paper " } else { "" };
            let part = |mb: f64| format!("{mb:.0} ({:.1} %)", 100.0 * mb / row.total.max(1.0));
            let zero = row.zero.map_or_else(|| "-".to_owned(), |mb| format!("{mb:.0}"));
            lines.push(format!(
                "{:30}{:>6}{:>9.0}{:>16}{:>16}{zero:>12}",
                format!("{whose}{}", row.what),
                row.guests,
                row.total,
                part(row.shared),
                part(row.reclaimed),
            ));
        }
        lines.push(
            "MB. The paper's are production hosts; ours are guests of 128 and 192 MB with Debian's kernels 6.1 and 6.12 and perl, each with\n\
             texts, numbers or patterns to work on, after a turn of that work."
                .to_owned(),
        );
        lines.join("\n")
    }

    /// Every measurement.
    pub(super) fn csv(&self) -> String {
        let lines = self.samples.iter().flat_map(|Timed { sample, .. }| {
            [("settled", sample.settled), ("working", sample.working)].map(|(when, picture)| {
                let Sample { fleet, guests, .. } = sample;
                format!("\"{fleet}\",{guests},{when},{}\n", picture.csv())
            })
        });
        let head = format!("fleet,guests,when,{}\n", Picture::HEAD);
        std::iter::once(head).chain(lines).collect()
    }

    /// Percents of each row, the paper's first.
    pub(super) fn svg(&self) -> String {
        let places: Vec<(f64, &Row)> = (1_u32..).map(f64::from).zip(&self.rows).collect();
        let name = |n: f64| {
            let found = places.iter().find(|(at, _)| (at - n).abs() < 0.1);
            found.map_or_else(String::new, |(_, row)| {
                if row.paper { row.what.chars().take(1).collect() } else { row.what.clone() }
            })
        };
        let percent = |n: f64| format!("{n:.0} %");
        let curve = |name, value: &dyn Fn(&Row) -> Option<f64>| Curve {
            name,
            points: places
                .iter()
                .filter_map(|(at, row)| Some((*at, 100.0 * value(row)? / row.total.max(1.0))))
                .collect(),
            marks: true,
        };
        let last = places.last().map_or(2.0, |(at, _)| at.max(2.0));
        let parts = u32::try_from(self.rows.len().max(2)).map_or(2, |rows| rows) - 1;
        let axis = Axis { from: 1.0, to: last, parts, words: &name };
        let mut drawing =
            Drawing::new("What unlike VMs share: A, B, C of Waldspurger 2002, figure 5, and ours", axis);
        let curves = [
            curve("shared", &|row| Some(row.shared)),
            curve("reclaimed", &|row| Some(row.reclaimed)),
            curve("of it zero", &|row| row.zero),
        ];
        drawing.panel(&Panel {
            title: "Percent of their memory",
            curves: &curves,
            most: 100.0,
            words: &percent,
        });
        drawing.finish()
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_units::Bytes;

    use super::*;

    #[test]
    fn fleets_stand_below_the_papers_hosts() {
        let picture = |reclaimed| Picture {
            memory: Bytes::mib(1000),
            shared: Bytes::mib(400),
            reclaimed: Bytes::mib(reclaimed),
            zero: Bytes::mib(50),
            held: Bytes::mib(600),
            ..Picture::default()
        };
        let sample =
            Sample { fleet: "mixed".to_owned(), guests: 5, settled: picture(350), working: picture(300) };
        let report = Report::new(vec![Timed { sample, ran: 1.0, took: 1.0 }]);
        assert_eq!(report.rows.len(), PAPER.len() + 1);
        let text = report.text();
        assert!(text.contains("673 (32.9 %)") && text.contains("300 (30.0 %)"), "{text}");
        assert!(report.csv().contains("\"mixed\",5,working,1048576000,"), "{}", report.csv());
        assert_eq!(report.svg().matches("<polyline").count(), 3);
    }
}
