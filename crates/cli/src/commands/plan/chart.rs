//! The chart in the terminal: a line of states, then a curve of blocks for each amount.

use plimsoll_policy::State;
use plimsoll_sim::{Course, Frame, Scenario};
use plimsoll_words::age;

use super::series::{self, Series, spans, words};

/// Columns of the curves: with a name before and a number after them a line has 79.
const WIDTH: usize = 56;
/// Characters of a name: that of a group and of an amount.
const NAME: usize = 12;
/// Lines of a curve: two show sixteen heights, and thirteen curves still fit a screen of 40 lines.
const LINES: usize = 2;
/// Groups of VMs that are drawn; the table lists all.
const GROUPS: usize = 8;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The chart, with colours if wanted.
pub(super) fn text(scenario: &Scenario, course: &Course, colours: bool) -> String {
    let mut lines = vec![states(course, colours)];
    for series in series::of_host(course) {
        lines.extend(curve(series.name, &series, series.most()));
    }
    let groups = series::of_groups(scenario, course);
    for group in groups.iter().take(GROUPS) {
        if let Some(backed) = group.series.first() {
            lines.extend(curve(&group.name, backed, backed.most()));
        }
    }
    lines.push(axis(scenario));
    lines.push(format!("{:NAME$} state: . high  c clear  S soft  H hard  L low, the worst", ""));
    lines.push(format!("{:NAME$} VMs: what their guests find backed, the mean of a count", ""));
    lines.push(format!("{:NAME$} each curve has a scale of its own", ""));
    if groups.len() > GROUPS {
        lines.push(format!("{:NAME$} {} more kinds of VMs are in the table", "", groups.len() - GROUPS));
    }
    lines.join("\n")
}

/// The worst state in each column.
fn states(course: &Course, colours: bool) -> String {
    let worst = |frames: &[Frame]| frames.iter().map(|f| f.state).max();
    let mut line = format!("{:NAME$} ", "state");
    for span in spans(course.frames.len(), WIDTH) {
        let Some(state) = worst(course.frames.get(span).unwrap_or(&[])) else { continue };
        let (letter, colour) = letter(state);
        if colours {
            line.push_str(&format!("\x1b[{colour}m{letter}\x1b[0m"));
        } else {
            line.push(letter);
        }
    }
    line
}

/// A state's letter, and its colour as the terminal counts them: green to red.
fn letter(state: State) -> (char, u8) {
    match state {
        State::High => ('.', 32),
        State::Clear => ('c', 36),
        State::Soft => ('S', 33),
        State::Hard => ('H', 35),
        State::Low => ('L', 31),
    }
}

fn curve(name: &str, series: &Series, most: f64) -> Vec<String> {
    let heights: Vec<usize> = series.in_spans(WIDTH).iter().map(|v| height(*v, most)).collect();
    let mut lines = Vec::new();
    for line in (0..LINES).rev() {
        let blocks: String = heights.iter().map(|h| BLOCKS[h.saturating_sub(line * 8).min(8)]).collect();
        let (before, after) =
            if line == 0 { (clip(name), words(most)) } else { (String::new(), String::new()) };
        lines.push(format!("{before:NAME$} {blocks} {after}").trim_end().to_owned());
    }
    lines
}

fn clip(name: &str) -> String {
    name.chars().take(NAME).collect()
}

/// In eighths of a line. What is more than nothing shows.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 to 16"
)]
fn height(value: f64, most: f64) -> usize {
    if value <= 0.0 || most <= 0.0 {
        return 0;
    }
    ((value / most * (LINES * 8) as f64).round() as usize).clamp(1, LINES * 8)
}

fn axis(scenario: &Scenario) -> String {
    let at = |part: u32| age((scenario.duration * part / 2).as_secs());
    let (start, middle, end) = ("0".to_owned(), at(1), at(2));
    let half = WIDTH / 2;
    format!("{:NAME$} {start:half$}{middle:<half$}{end}", "")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use plimsoll_sim::simulate;

    use super::*;
    use crate::commands::plan::scenario_file;

    #[test]
    fn a_chart_fits_eighty_columns_and_has_colours_only_where_wanted() {
        for name in ["figure7", "figure8"] {
            let scenario = scenario_file::read(Path::new(name)).unwrap();
            let course = simulate(&scenario);
            let plain = text(&scenario, &course, false);
            assert!(plain.lines().all(|l| l.chars().count() <= 80), "{plain}");
            assert!(plain.contains("balloon") && plain.contains('█') && !plain.contains('\x1b'), "{plain}");
            assert!(text(&scenario, &course, true).contains("\x1b[32m.\x1b[0m"));
        }
    }

    #[test]
    fn what_is_little_still_shows() {
        assert_eq!([0.0, 0.1, 50.0, 100.0].map(|v| height(v, 100.0)), [0, 1, 8, 16]);
        assert_eq!(height(3.0, 0.0), 0);
    }
}
