//! The course as a drawing: a band of states, the host's amounts, then one panel for each kind of VM.

use std::fmt::Write;
use std::time::Duration;

use plimsoll_policy::State;
use plimsoll_sim::{Course, Scenario};

use super::series::{self, Series, words};
use crate::interval::age;

const WIDTH: f64 = 960.0;
/// Where curves begin and end: amounts stand on their left, the legend on their right.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 830.0;
const PANEL: f64 = 190.0;
/// Between panels: a title, and the times of the one above.
const GAP: f64 = 44.0;
const TOP: f64 = 84.0;
/// Panels beyond this make a drawing that no one reads.
const PANELS: usize = 12;
/// Okabe and Ito's colours, which people who see no red or green tell apart.
const COLOURS: [&str; 7] = ["#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The drawing.
pub(super) fn text(scenario: &Scenario, course: &Course) -> String {
    let mut panels = vec![("host".to_owned(), series::of_host(course))];
    for group in series::of_groups(scenario, course).into_iter().take(PANELS - 1) {
        let title = match group.vms.len() {
            1 => group.name,
            n => format!("{} (mean of {n})", group.name),
        };
        panels.push((title, group.series));
    }
    #[expect(clippy::cast_precision_loss, reason = "at most twelve")]
    let height = TOP + panels.len() as f64 * (PANEL + GAP);
    let mut drawing = Drawing::new(height, scenario.duration);
    drawing.label(LEFT, 24.0, "start", "title", &scenario.title);
    drawing.states(course);
    let mut top = TOP;
    for (title, series) in &panels {
        drawing.panel(top, title, series, course);
        top += PANEL + GAP;
    }
    drawing.text + "</svg>\n"
}

struct Drawing {
    text: String,
    duration: Duration,
}

impl Drawing {
    fn new(height: f64, duration: Duration) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>.title {{ font-size: 16px; font-weight: bold }} .panel {{ font-weight: bold }}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        Self { text, duration }
    }

    /// Adds a line. Writing to a string cannot fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").ok();
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escaped(text);
        self.line(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (RIGHT - LEFT) * at.as_secs_f64() / self.duration.as_secs_f64()
    }

    /// A band of the host's states, and what its colours mean.
    fn states(&mut self, course: &Course) {
        self.label(LEFT - 8.0, 50.0, "end", "", "state");
        let mut frames = course.frames.iter().peekable();
        while let Some(first) = frames.next() {
            // One rectangle for as long as the state holds.
            while frames.next_if(|f| f.state == first.state).is_some() {}
            let end = frames.peek().map_or(self.duration, |f| f.at);
            let (from, to) = (self.x(first.at), self.x(end));
            let (_, colour) = state(first.state);
            self.line(format_args!(
                "<rect x=\"{from:.1}\" y=\"38\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
                (to - from).max(0.5)
            ));
        }
        for (i, (name, colour)) in (0u32..).zip(plimsoll_sim::STATES.map(state)) {
            let (x, y) = (RIGHT + 12.0 + f64::from(i % 2) * 60.0, 24.0 + f64::from(i / 2) * 15.0);
            self.line(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\"/>"
            ));
            self.label(x + 13.0, y + 9.0, "start", "", name);
        }
    }

    fn panel(&mut self, top: f64, title: &str, series: &[Series], course: &Course) {
        let most = series.iter().map(Series::most).fold(0.0, f64::max);
        let scale = round_up(most);
        self.label(LEFT, top - 6.0, "start", "panel", title);
        for part in 0..=4u32 {
            let y = top + PANEL * (1.0 - f64::from(part) / 4.0);
            self.line(format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>"
            ));
            self.label(LEFT - 8.0, y + 4.0, "end", "", &words(scale * f64::from(part) / 4.0));
        }
        for part in 0..=6u32 {
            let at = self.duration * part / 6;
            let x = self.x(at);
            self.line(format_args!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#888888\"/>",
                top + PANEL,
                top + PANEL + 4.0
            ));
            let text = if part == 0 { "0".to_owned() } else { age(at.as_secs()) };
            self.label(x, top + PANEL + 17.0, "middle", "", &text);
        }
        let mut y = top + 10.0;
        for (series, colour) in series.iter().zip(COLOURS) {
            self.curve(top, series, colour, scale, course);
            self.line(format_args!(
                "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                RIGHT + 12.0,
                RIGHT + 32.0
            ));
            self.label(RIGHT + 38.0, y + 4.0, "start", "", series.name);
            y += 18.0;
        }
    }

    fn curve(&mut self, top: f64, series: &Series, colour: &str, scale: f64, course: &Course) {
        let mut points = String::new();
        for (frame, value) in course.frames.iter().zip(&series.values) {
            let y = top + PANEL * (1.0 - value / scale);
            write!(points, "{:.1},{y:.1} ", self.x(frame.at)).ok();
        }
        self.line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.trim_end()
        ));
    }
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

/// The end of a scale whose quarters are whole: 1, 2 or 4 times a power of two of MiB, a quarter of that more or less.
fn round_up(most: f64) -> f64 {
    let mib = f64::from(1 << 20);
    let mut scale = 4.0 * mib;
    while scale < most {
        scale *= 2.0;
    }
    let finer = scale * 0.75;
    if finer >= most && finer >= 4.0 * mib { finer } else { scale }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
