use std::f64::consts::TAU;
use std::time::Duration;

use plimsoll_units::Bytes;

/// What a guest wants over its time since power on.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The curve.
    pub curve: Curve,
    /// It swings around the curve by up to this part of it.
    pub jitter: f64,
    /// Each VM of a count follows the curve later by a random time up to this.
    pub spread: Duration,
}

/// Active memory over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    /// Levels, each reached at a time, at once or over a ramp. Never empty, in order of time.
    Points(Vec<Point>),
    /// Up and down for ever.
    Cycle(Cycle),
    /// As recorded.
    Trace(Trace),
}

/// From this time on the guest wants this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Since power on.
    pub at: Duration,
    /// How long the change to it takes, from `at` on.
    pub ramp: Duration,
    /// What it uses.
    pub want: Want,
}

/// What a guest wants at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Want {
    /// Memory that it touches all the time.
    pub active: Bytes,
    /// Memory that has content it wants to keep, `active` included; `None`: all that was ever
    /// active.
    pub content: Option<Bytes>,
}

/// A wave between two levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cycle {
    /// Lowest and highest active memory.
    pub low: Bytes,
    /// See `low`.
    pub high: Bytes,
    /// From peak to peak.
    pub period: Duration,
    /// The first peak; for a square wave the first rise.
    pub peak: Duration,
    /// The part of the period that a square wave is high; `None`: a sine wave.
    pub duty: Option<f64>,
}

/// Active memory and content as they were recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Since power on, in order of time. Never empty.
    pub points: Vec<(Duration, Want)>,
    /// It begins again when it has ended; else its last values hold.
    pub repeat: bool,
}

impl Demand {
    /// What is wanted `at` after power on. `swing` from -1 to 1 is where in its jitter the guest
    /// is.
    pub(crate) fn at(&self, at: Duration, swing: f64) -> Want {
        let want = self.curve.at(at);
        Want { active: scaled(want.active, 1.0 + self.jitter * swing), ..want }
    }

    /// The mean and the highest active memory over `span`, looked at in 1000 places.
    pub fn mean_and_peak(&self, span: Duration) -> (Bytes, Bytes) {
        let looks = (0..1000u32).map(|i| self.curve.at(span * i / 1000).active.0);
        let (sum, peak) = looks.fold((0u64, 0u64), |(s, p), a| (s.saturating_add(a), p.max(a)));
        (Bytes(sum / 1000), Bytes(peak))
    }
}

impl Curve {
    /// What is wanted `at` after power on.
    pub fn at(&self, at: Duration) -> Want {
        match self {
            Self::Points(points) => at_points(points, at),
            Self::Cycle(cycle) => Want { active: cycle.at(at), content: None },
            Self::Trace(trace) => trace.at(at),
        }
    }
}

fn at_points(points: &[Point], at: Duration) -> Want {
    let next = points.partition_point(|p| p.at <= at);
    let Some(point) = next.checked_sub(1).and_then(|i| points.get(i)) else { return Want::default() };
    let into = at.saturating_sub(point.at);
    if into >= point.ramp {
        return point.want;
    }
    let before = next.checked_sub(2).and_then(|i| points.get(i)).map(|p| p.want).unwrap_or_default();
    let part = into.as_secs_f64() / point.ramp.as_secs_f64();
    between(before, point.want, part)
}

fn between(from: Want, to: Want, part: f64) -> Want {
    let mix = |a: Bytes, b: Bytes| scaled(a, 1.0 - part) + scaled(b, part);
    let content = match (from.content, to.content) {
        (None, None) => None,
        (a, b) => Some(mix(a.unwrap_or(from.active), b.unwrap_or(to.active))),
    };
    Want { active: mix(from.active, to.active), content }
}

impl Cycle {
    fn at(&self, at: Duration) -> Bytes {
        let period = self.period.as_secs_f64();
        let phase = ((at.as_secs_f64() - self.peak.as_secs_f64()) / period).rem_euclid(1.0);
        let height = match self.duty {
            Some(duty) => f64::from(u8::from(phase < duty)),
            None => (1.0 + (phase * TAU).cos()) / 2.0,
        };
        self.low + scaled(self.high.saturating_sub(self.low), height)
    }
}

impl Trace {
    fn at(&self, at: Duration) -> Want {
        let end = self.points.last().map_or(Duration::ZERO, |p| p.0);
        let at = if self.repeat && end > Duration::ZERO {
            Duration::from_secs_f64(at.as_secs_f64() % end.as_secs_f64())
        } else {
            at
        };
        let next = self.points.partition_point(|p| p.0 <= at);
        self.points.get(next.saturating_sub(1)).map(|p| p.1).unwrap_or_default()
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a demand is no account: a rounded byte changes nothing, and `as` saturates"
)]
fn scaled(bytes: Bytes, by: f64) -> Bytes {
    Bytes((bytes.0 as f64 * by).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    fn active(curve: &Curve, at: u64) -> u64 {
        curve.at(minutes(at)).active.0
    }

    #[test]
    fn steps_hold_and_ramps_climb() {
        let point = |at, ramp, active| Point {
            at: minutes(at),
            ramp: minutes(ramp),
            want: Want { active: Bytes(active), content: None },
        };
        let curve = Curve::Points(vec![point(1, 0, 100), point(10, 10, 300)]);
        let seen: Vec<u64> = [0, 1, 9, 15, 20, 99].map(|t| active(&curve, t)).into();
        assert_eq!(seen, [0, 100, 100, 200, 300, 300]);
    }

    #[test]
    fn a_cycle_peaks_where_it_says() {
        let cycle = |duty| {
            Curve::Cycle(Cycle {
                low: Bytes(100),
                high: Bytes(300),
                period: minutes(60),
                peak: minutes(10),
                duty,
            })
        };
        assert_eq!([10, 40, 70, 25].map(|t| active(&cycle(None), t)), [300, 100, 300, 200]);
        assert_eq!([9, 10, 24, 25, 70].map(|t| active(&cycle(Some(0.25)), t)), [100, 300, 300, 100, 300]);
    }

    #[test]
    fn a_trace_holds_its_last_values_or_begins_again() {
        let want = |active| Want { active: Bytes(active), content: None };
        let trace = |repeat| {
            Curve::Trace(Trace {
                points: vec![(minutes(0), want(1)), (minutes(5), want(2)), (minutes(10), want(3))],
                repeat,
            })
        };
        assert_eq!([0, 4, 5, 30].map(|t| active(&trace(false), t)), [1, 1, 2, 3]);
        assert_eq!([12, 17].map(|t| active(&trace(true), t)), [1, 2]);
    }

    #[test]
    fn mean_and_peak_are_those_of_the_curve() {
        let cycle = Cycle {
            low: Bytes(100),
            high: Bytes(300),
            period: minutes(60),
            peak: minutes(0),
            duty: Some(0.25),
        };
        let demand = Demand { curve: Curve::Cycle(cycle), jitter: 0.0, spread: Duration::ZERO };
        assert_eq!(demand.mean_and_peak(minutes(60)), (Bytes(150), Bytes(300)));
    }
}
