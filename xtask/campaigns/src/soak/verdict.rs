//! Whether a figure is flat.

use std::fmt;

use serde::Serialize;

use super::sample::Sample;
use super::trend::slope;

/// A figure of a sample, and how fast it may rise.
struct Bound {
    what: &'static str,
    of: fn(&Sample) -> f64,
    /// Most an hour.
    hourly: f64,
    /// A rise by less than this in all is no rise: allocators keep what they have, and a short run
    /// makes much of little.
    grain: f64,
}

/// What is judged. PSS is drawn only: it rises when another process of the same program ends. A
/// leak of one descriptor or file in a hundred operations is 72 an hour, one of 250 bytes in each
/// operation 1.7 MiB.
const BOUNDS: [Bound; 9] = [
    Bound {
        what: "the daemon's anonymous memory without its history, MiB",
        of: |sample| sample.daemon.anonymous - sample.history,
        hourly: 1.0,
        grain: 1.0,
    },
    Bound {
        what: "the daemon's descriptors",
        of: |sample| sample.daemon.descriptors,
        hourly: 10.0,
        grain: 6.0,
    },
    Bound { what: "the daemon's mappings", of: |sample| sample.daemon.mappings, hourly: 30.0, grain: 16.0 },
    Bound {
        what: "anonymous memory of a lasting VMM, MiB",
        of: |sample| sample.lasting.anonymous,
        hourly: 0.25,
        grain: 0.25,
    },
    Bound {
        what: "descriptors of a lasting VMM",
        of: |sample| sample.lasting.descriptors,
        hourly: 0.5,
        grain: 0.5,
    },
    Bound {
        what: "mappings of a lasting VMM, without its guest's",
        of: |sample| sample.lasting.mappings,
        hourly: 8.0,
        grain: 8.0,
    },
    Bound { what: "files in the run directory", of: |sample| sample.run_files, hourly: 10.0, grain: 6.0 },
    Bound { what: "content of the run directory, KiB", of: |sample| sample.run_kib, hourly: 4.0, grain: 2.0 },
    Bound { what: "files in the state directory", of: |sample| sample.state_files, hourly: 10.0, grain: 6.0 },
];

/// What came of one figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) what: &'static str,
    /// At the first and the last sample.
    pub(super) first: f64,
    pub(super) last: f64,
    /// By the line through the second half.
    pub(super) hourly: f64,
    pub(super) most_hourly: f64,
    /// By the same line, in the time of the second half.
    pub(super) rise: f64,
    pub(super) grain: f64,
    pub(super) flat: bool,
}

/// Judges all samples of a run.
pub(super) fn judge(samples: &[Sample]) -> Vec<Verdict> {
    BOUNDS.iter().map(|bound| bound.judge(samples)).collect()
}

impl Bound {
    fn judge(&self, samples: &[Sample]) -> Verdict {
        let points: Vec<(f64, f64)> =
            samples.iter().map(|sample| (sample.hours, (self.of)(sample))).collect();
        let half = &points[points.len() / 2..];
        let hourly = slope(half);
        let hours = half.last().map_or(0.0, |last| last.0) - half.first().map_or(0.0, |first| first.0);
        let rise = hourly * hours;
        Verdict {
            what: self.what,
            first: points.first().map_or(0.0, |first| first.1),
            last: points.last().map_or(0.0, |last| last.1),
            hourly,
            most_hourly: self.hourly,
            rise,
            grain: self.grain,
            flat: hourly <= self.hourly || rise < self.grain,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {:.2} at first, {:.2} at last; {:+.2} an hour, at most {} (or {:+.2} in all, less than {})",
            if self.flat { "flat" } else { "GROWS" },
            self.what,
            self.first,
            self.last,
            self.hourly,
            self.most_hourly,
            self.rise,
            self.grain
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Part;
    use super::*;

    /// Two hours, a sample a minute, with what `change` does to each.
    fn run(minutes: u32, change: impl Fn(f64, &mut Sample)) -> Vec<Verdict> {
        let part = Part { pss: 12.0, anonymous: 10.0, descriptors: 500.0, mappings: 300.0, threads: 9.0 };
        let sample = |minute: u32| {
            let noise = f64::from(minute * 7919 % 13) / 13.0;
            let mut sample = Sample {
                hours: f64::from(minute) / 60.0,
                on: 52,
                daemon: Part { anonymous: 10.0 + noise, descriptors: 500.0 + noise * 3.0, ..part },
                history: 0.0,
                lasting: part,
                islands: 40.0,
                all: part,
                run_files: 300.0,
                run_kib: 100.0,
                state_files: 150.0,
            };
            change(f64::from(minute), &mut sample);
            sample
        };
        judge(&(0..minutes).map(sample).collect::<Vec<_>>())
    }

    fn grows(verdicts: &[Verdict]) -> Vec<&'static str> {
        verdicts.iter().filter(|verdict| !verdict.flat).map(|verdict| verdict.what).collect()
    }

    #[test]
    fn noise_and_a_rise_in_the_first_half_are_flat() {
        assert!(grows(&run(120, |_, _| {})).is_empty());
        let settles = run(120, |minute, sample| sample.daemon.anonymous += minute.min(55.0));
        assert!(grows(&settles).is_empty(), "{settles:?}");
        assert!(grows(&run(0, |_, _| {})).is_empty());
    }

    #[test]
    fn each_leak_is_named_and_no_other() {
        type Leak = fn(f64, &mut Sample);
        // Each is a leak of one in a hundred operations, or of some 250 bytes in each.
        let leaks: [(&str, Leak); 7] = [
            ("the daemon's descriptors", |minute, sample| sample.daemon.descriptors += minute * 1.2),
            ("the daemon's mappings", |minute, sample| sample.daemon.mappings += minute * 1.2),
            ("the daemon's anonymous memory", |minute, sample| {
                sample.daemon.anonymous += minute * 0.03;
            }),
            ("descriptors of a lasting VMM", |minute, sample| sample.lasting.descriptors += minute / 50.0),
            ("files in the run directory", |minute, sample| sample.run_files += minute * 1.2),
            ("content of the run directory", |minute, sample| sample.run_kib += minute * 0.1),
            ("files in the state directory", |minute, sample| sample.state_files += minute * 1.2),
        ];
        for (what, leak) in leaks {
            let verdicts = run(120, leak);
            let named = grows(&verdicts);
            assert!(named.len() == 1 && named[0].starts_with(what), "{what}: {named:?}");
            let verdict = verdicts.iter().find(|verdict| !verdict.flat).unwrap();
            assert!(verdict.to_string().starts_with("GROWS"), "{verdict}");
        }
    }

    #[test]
    fn growth_of_the_history_is_no_leak() {
        let grown = |minute: f64, sample: &mut Sample| {
            (sample.daemon.anonymous, sample.history) = (sample.daemon.anonymous + minute, minute);
        };
        assert!(grows(&run(120, grown)).is_empty());
    }
}
