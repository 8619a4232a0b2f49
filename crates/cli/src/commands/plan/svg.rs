//! The course as a drawing: a band of states, the host's amounts, then one panel for each kind of
//! VM.

use std::time::Duration;

use plimsoll_chart::{Axis, Curve, Drawing, Panel, Stretch};
use plimsoll_policy::State;
use plimsoll_sim::{Course, Scenario};
use plimsoll_words::age;

use super::series::{self, Series, words};

/// Most panels of a drawing that can still be read.
const PANELS: usize = 12;

/// The drawing.
pub(super) fn text(scenario: &Scenario, course: &Course) -> String {
    let times = |seconds: f64| match Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs() {
        0 => "0".to_owned(),
        seconds => age(seconds),
    };
    let axis = Axis { from: 0.0, to: scenario.duration.as_secs_f64(), parts: 6, words: &times };
    let mut drawing = Drawing::new(&scenario.title, axis);
    drawing.band("state", &states(scenario, course), &plimsoll_sim::STATES.map(state));
    panel(&mut drawing, "host", &series::of_host(course), course);
    for group in series::of_groups(scenario, course).into_iter().take(PANELS - 1) {
        let title = match group.vms.len() {
            1 => group.name,
            n => format!("{} (mean of {n})", group.name),
        };
        panel(&mut drawing, &title, &group.series, course);
    }
    drawing.finish()
}

/// One stretch for as long as a state holds.
fn states(scenario: &Scenario, course: &Course) -> Vec<Stretch<'static>> {
    let mut stretches = Vec::new();
    let mut frames = course.frames.iter().peekable();
    while let Some(first) = frames.next() {
        while frames.next_if(|f| f.state == first.state).is_some() {}
        let end = frames.peek().map_or(scenario.duration, |f| f.at);
        let (from, to) = (first.at.as_secs_f64(), end.as_secs_f64());
        stretches.push(Stretch { from, to, colour: state(first.state).1 });
    }
    stretches
}

fn panel(drawing: &mut Drawing<'_>, title: &str, series: &[Series], course: &Course) {
    let curve = |series: &Series| {
        let times = course.frames.iter().map(|frame| frame.at.as_secs_f64());
        Curve { name: series.name, points: times.zip(series.values.iter().copied()).collect(), marks: false }
    };
    let curves: Vec<Curve<'_>> = series.iter().map(curve).collect();
    let most = round_up(series.iter().map(Series::most).fold(0.0, f64::max));
    drawing.panel(&Panel { title, curves: &curves, most, words: &words });
}

fn state(state: State) -> (&'static str, &'static str) {
    match state {
        State::High => ("high", "#b7e0c8"),
        State::Clear => ("clear", "#56b4e9"),
        State::Soft => ("soft", "#f0e442"),
        State::Hard => ("hard", "#e69f00"),
        State::Low => ("low", "#d55e00"),
    }
}

/// The end of a scale whose quarters are whole: 1, 2 or 4 times a power of two of MiB, a quarter of
/// that more or less.
fn round_up(most: f64) -> f64 {
    let mib = f64::from(1 << 20);
    let mut scale = 4.0 * mib;
    while scale < most {
        scale *= 2.0;
    }
    let finer = scale * 0.75;
    if finer >= most && finer >= 4.0 * mib { finer } else { scale }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use plimsoll_sim::simulate;

    use super::*;
    use crate::commands::plan::scenario_file;

    #[test]
    fn a_drawing_has_a_curve_for_every_amount_and_every_tag_is_closed() {
        let mut scenario = scenario_file::read(Path::new("figure7")).unwrap();
        scenario.title = "a < b & c".to_owned();
        let drawing = text(&scenario, &simulate(&scenario));
        // Host: free, active, held, balloon, swap, short, and nothing shared; each VM four.
        assert_eq!(drawing.matches("<polyline").count(), 6 + 2 * 4, "{drawing}");
        assert!(drawing.contains("a &lt; b &amp; c") && drawing.ends_with("</svg>\n"));
        assert_eq!(drawing.matches("<text").count(), drawing.matches("</text>").count());
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"));
    }

    #[test]
    fn scales_end_at_round_amounts() {
        let mib = |n: u32| f64::from(n) * f64::from(1 << 20);
        for (most, scale) in [(0, 4), (3, 3), (5, 6), (7, 8), (100, 128), (90, 96), (700, 768)] {
            assert_eq!(round_up(mib(most)), mib(scale.max(4)), "{most}");
        }
    }
}
