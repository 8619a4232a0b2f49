//! Percents of the guests' memory, and what the load makes of it, beside the paper's figures.

use plimsoll_chart::{Axis, Curve, Drawing, Panel};
use plimsoll_units::Bytes;
use serde::Serialize;

use super::super::fleet::Picture;
use super::super::lab::Timed;
use super::super::table::mb;
use super::inside::{Plan, SIZE, Sample};
use crate::stats::{Spread, interval};

/// What the paper shows: guests, and shared and reclaimed memory in percent of theirs.
const PAPER: [(u32, f64, f64); 5] =
    [(1, 16.9, 12.6), (2, 61.1, 36.4), (3, 64.8, 45.9), (5, 66.6, 54.3), (10, 67.0, 59.9)];

/// The figure. Its fields are an interface: scripts read them.
#[derive(Debug, Serialize)]
pub(in crate::paper) struct Report {
    figure: &'static str,
    plan: Plan,
    rows: Vec<Row>,
    /// By how many percent more work is done with sharing than without, in the same processor time:
    /// pairs of turns with all numbers of guests together.
    gain: Option<Gain>,
    samples: Vec<Timed<Sample>>,
}

/// What a number of guests share. Memory is in percent of theirs at the end of turns of work (the
/// median), or when nothing more is found.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    guests: u32,
    paper_shared: Option<f64>,
    paper_reclaimed: Option<f64>,
    shared: Option<f64>,
    reclaimed: Option<f64>,
    zero: Option<f64>,
    shared_mb: Option<f64>,
    reclaimed_mb: Option<f64>,
    zero_mb: Option<f64>,
    settled_reclaimed: Option<f64>,
    /// The most that could be reclaimed when that was so: every page that was there more than once,
    /// or zero.
    mergeable: Option<f64>,
    gain: Option<Gain>,
}

/// A gain in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Gain {
    pairs: usize,
    median: f64,
    /// The ends of the median's 95 % interval.
    low: f64,
    high: f64,
}

impl Gain {
    fn of(gains: &[f64]) -> Option<Self> {
        if gains.is_empty() {
            return None;
        }
        let [low, median, high] = interval(gains).map(|gain| (gain * 100.0).round() / 100.0);
        Some(Self { pairs: gains.len(), median, low, high })
    }
}

impl Report {
    pub(super) fn new(plan: Plan, samples: Vec<Timed<Sample>>) -> Self {
        let rows = plan.guests.iter().map(|&guests| row(&samples, guests)).collect();
        let all: Vec<f64> = plan.guests.iter().flat_map(|&guests| gains(&samples, guests)).collect();
        Self { figure: "figure 4", rows, gain: Gain::of(&all), plan, samples }
    }

    /// For people.
    pub(in crate::paper) fn text(&self) -> String {
        let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        let gain = |gain: Option<Gain>| {
            gain.map_or_else(
                || "-".to_owned(),
                |Gain { pairs, median, low, high }| {
                    format!("{median:+.2} ({low:+.2} to {high:+.2}, {pairs} pairs)")
                },
            )
        };
        let mut lines = vec![
            format!("{:10}{:>20}{:>40}", "figure 4", "PAPER, %", "OURS, % (MB)"),
            format!(
                "{:>6}{:>12}{:>12}{:>18}{:>18}{:>16}{:>14}   {}",
                "guests",
                "shared",
                "reclaimed",
                "shared",
                "reclaimed",
                "of it zero",
                "could be, %",
                "throughput with sharing, %"
            ),
        ];
        for row in &self.rows {
            let both = |percent, mb| format!("{} ({})", number(percent), number(mb));
            lines.push(format!(
                "{:>6}{:>12}{:>12}{:>18}{:>18}{:>16}{:>14}   {}",
                row.guests,
                number(row.paper_shared),
                number(row.paper_reclaimed),
                both(row.shared, row.shared_mb),
                both(row.reclaimed, row.reclaimed_mb),
                both(row.zero, row.zero_mb),
                number(row.mergeable),
                gain(row.gain)
            ));
        }
        lines.push(format!(
            "Guests of {SIZE} with Debian's kernel and perl, at the end of turns of work; the paper's have 40 MB and run SPEC95. Throughput is\n\
             that of a fleet with sharing against its like without, turns of both by turns, {} for all numbers of guests\n\
             together (the paper: +0.5 on average, -1.6 to +1.8): the median and its 95 % interval, of the processor time that the same work\n\
             takes the whole lab. What is off keeps its large pages: it is what sharing costs with all that it needs.",
            gain(self.gain)
        ));
        lines.join("\n")
    }

    /// Every measurement.
    pub(super) fn csv(&self) -> String {
        let line = |t: &Timed<Sample>| match t.sample {
            Sample::Picture { guests, round, picture } => {
                format!("{guests},{round},memory,{},,\n", picture.csv())
            }
            Sample::Mergeable { guests, bytes } => {
                format!("{guests},0,mergeable,,,{},,,,,,\n", bytes.0)
            }
            Sample::Turn { guests, round, shares } => {
                let how = if shares { "sharing" } else { "off" };
                format!("{guests},{round},{how},,,,,,,,{:.3},{:.3}\n", t.ran, t.took)
            }
        };
        let head = format!("guests,round,what,{},lab_seconds,seconds\n", Picture::HEAD);
        std::iter::once(head).chain(self.samples.iter().map(line)).collect()
    }

    /// Percents over the number of guests.
    pub(super) fn svg(&self) -> String {
        let guests = |n: f64| format!("{n:.0} guests");
        let percent = |n: f64| format!("{n:.0} %");
        let curve = |name, value: &dyn Fn(&Row) -> Option<f64>| Curve {
            name,
            points: self.rows.iter().filter_map(|row| Some((f64::from(row.guests), value(row)?))).collect(),
            marks: true,
        };
        let most = self.plan.guests.iter().max().copied().unwrap_or(1).max(2);
        let axis = Axis { from: 1.0, to: f64::from(most), parts: most - 1, words: &guests };
        let ours = [
            curve("shared", &|row| row.shared),
            curve("reclaimed", &|row| row.reclaimed),
            curve("of it zero", &|row| row.zero),
        ];
        let paper =
            [curve("shared", &|row| row.paper_shared), curve("reclaimed", &|row| row.paper_reclaimed)];
        let mut drawing =
            Drawing::new("Identical VMs under load that share pages: percent of their memory", axis);
        for (title, curves) in [("Plimsoll", &ours[..]), ("Waldspurger 2002, figure 4", &paper[..])] {
            drawing.panel(&Panel { title, curves, most: 100.0, words: &percent });
        }
        drawing.finish()
    }
}

fn row(samples: &[Timed<Sample>], wanted: u32) -> Row {
    let pictures = |working: bool| {
        samples.iter().filter_map(move |timed| match timed.sample {
            Sample::Picture { guests, round, picture } if guests == wanted && (round > 0) == working => {
                Some(picture)
            }
            _ => None,
        })
    };
    // Where no guest was measured at work, there is only what they share at rest.
    let working = pictures(true).next().is_some();
    let middle = |value: &dyn Fn(&Picture) -> f64| {
        Spread::of(pictures(working).map(|picture| value(&picture)), 1).map(|spread| spread.median)
    };
    let all = Picture { memory: Bytes(SIZE.0 * u64::from(wanted)), ..Picture::default() };
    let paper = PAPER.iter().find(|(guests, ..)| *guests == wanted);
    Row {
        guests: wanted,
        paper_shared: paper.map(|&(_, shared, _)| shared),
        paper_reclaimed: paper.map(|&(_, _, reclaimed)| reclaimed),
        shared: middle(&|p| p.percent(p.shared)),
        reclaimed: middle(&|p| p.percent(p.reclaimed)),
        zero: middle(&|p| p.percent(p.zero)),
        shared_mb: middle(&|p| mb(p.shared)),
        reclaimed_mb: middle(&|p| mb(p.reclaimed)),
        zero_mb: middle(&|p| mb(p.zero)),
        settled_reclaimed: Spread::of(pictures(false).map(|p| p.percent(p.reclaimed)), 1)
            .map(|spread| spread.median),
        mergeable: samples.iter().find_map(|timed| match timed.sample {
            Sample::Mergeable { guests, bytes } if guests == wanted => Some(all.percent(bytes)),
            _ => None,
        }),
        gain: Gain::of(&gains(samples, wanted)),
    }
}

/// By how many percent more was done in the same time with sharing, in each pair of turns.
fn gains(samples: &[Timed<Sample>], wanted: u32) -> Vec<f64> {
    let turns = |wants: bool| {
        samples.iter().filter_map(move |timed| match timed.sample {
            Sample::Turn { guests, round, shares } if guests == wanted && shares == wants => {
                Some((round, timed.ran))
            }
            _ => None,
        })
    };
    let pair = |(round, with): (u32, f64)| {
        let (_, without) = turns(false).find(|(other, _)| *other == round)?;
        Some(100.0 * (without / with.max(0.001) - 1.0))
    };
    turns(true).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(sample: Sample, ran: f64) -> Timed<Sample> {
        Timed { sample, ran, took: 2.0 * ran }
    }

    #[test]
    fn memory_is_that_at_work_and_gains_are_of_pairs() {
        let picture = |reclaimed| Picture {
            memory: Bytes::mib(1000),
            shared: Bytes::mib(700),
            reclaimed: Bytes::mib(reclaimed),
            zero: Bytes::mib(50),
            held: Bytes::mib(300),
            ..Picture::default()
        };
        let memory =
            |round, reclaimed| timed(Sample::Picture { guests: 10, round, picture: picture(reclaimed) }, 1.0);
        let turn = |round, shares, ran| timed(Sample::Turn { guests: 10, round, shares }, ran);
        let samples = vec![
            memory(0, 650),
            turn(1, false, 10.0),
            turn(1, true, 10.1),
            memory(1, 600),
            turn(2, true, 20.0),
            turn(2, false, 20.0),
        ];
        let report = Report::new(Plan { guests: vec![2, 10], rounds: 2, units: 60 }, samples);
        let row = report.rows[1];
        assert_eq!((row.shared, row.reclaimed, row.settled_reclaimed), (Some(70.0), Some(60.0), Some(65.0)));
        assert_eq!((row.zero_mb, row.paper_reclaimed), (Some(50.0), Some(59.9)));
        assert_eq!(report.gain, Some(Gain { pairs: 2, median: 0.0, low: -0.99, high: 0.0 }));
        assert!(
            report.rows[0].shared.is_none() && report.text().contains("60.0 (600.0)"),
            "{}",
            report.text()
        );
        assert!(report.csv().contains("10,1,sharing,,,,,,,,10.100,20.200\n"), "{}", report.csv());
        assert_eq!(report.svg().matches("<polyline").count(), 5);
    }
}
