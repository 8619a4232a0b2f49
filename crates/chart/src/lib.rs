//! Drawings of curves, as SVG: a title, bands and panels one below the other, all over the same
//! horizontal axis.
//!
//! Start at [`Drawing`]. It knows nothing of what it draws: callers bring numbers and the words for
//! them.

use std::fmt::Write;

const WIDTH: f64 = 960.0;
/// Where curves begin and end: amounts stand on their left, the legend on their right.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 830.0;
const PANEL: f64 = 190.0;
/// Between panels: a title, and the numbers of the axis above.
const GAP: f64 = 44.0;
/// The title.
const TOP: f64 = 52.0;
/// A band, and what its colours mean.
const BAND: f64 = 32.0;
/// Parts that the numbers beside a panel divide it into.
const PARTS: u32 = 4;
/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [&str; 7] = ["#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The horizontal axis of a drawing.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    /// Where it begins.
    pub from: f64,
    /// Where it ends, beyond `from`.
    pub to: f64,
    /// Parts that the numbers below it divide it into, at least one.
    pub parts: u32,
    /// A number of it in words.
    pub words: &'a dyn Fn(f64) -> String,
}

/// Curves over the axis of a drawing.
pub struct Panel<'a> {
    /// What it shows.
    pub title: &'a str,
    /// The curves.
    pub curves: &'a [Curve<'a>],
    /// The number at its upper end; the lower end is zero.
    pub most: f64,
    /// An amount in words.
    pub words: &'a dyn Fn(f64) -> String,
}

/// A curve: points from left to right.
pub struct Curve<'a> {
    /// For the legend.
    pub name: &'a str,
    /// Place on the axis, and amount.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is marked: for curves of few points.
    pub marks: bool,
}

/// A stretch of the axis in a colour.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// As CSS writes colours.
    pub colour: &'a str,
}

/// A drawing under construction.
pub struct Drawing<'a> {
    body: String,
    axis: Axis<'a>,
    bottom: f64,
}

impl<'a> Drawing<'a> {
    /// An empty drawing.
    pub fn new(title: &str, axis: Axis<'a>) -> Self {
        let mut drawing = Self { body: String::new(), axis, bottom: TOP };
        drawing.label(LEFT, 24.0, "start", "title", title);
        drawing
    }

    /// Adds a band of colours, and a legend of them.
    pub fn band(&mut self, name: &str, stretches: &[Stretch<'_>], legend: &[(&str, &str)]) {
        let top = self.bottom - 14.0;
        self.label(LEFT - 8.0, top + 12.0, "end", "", name);
        for stretch in stretches {
            let (from, to) = (self.x(stretch.from), self.x(stretch.to));
            self.line(format_args!(
                "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>",
                (to - from).max(0.5),
                stretch.colour
            ));
        }
        for (i, (name, colour)) in (0u32..).zip(legend) {
            let (x, y) = (RIGHT + 12.0 + f64::from(i % 2) * 60.0, top - 14.0 + f64::from(i / 2) * 15.0);
            self.line(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\"/>"
            ));
            self.label(x + 13.0, y + 9.0, "start", "", name);
        }
        self.bottom += BAND;
    }

    /// Adds a panel.
    pub fn panel(&mut self, panel: &Panel<'_>) {
        let top = self.bottom;
        self.label(LEFT, top - 6.0, "start", "panel", panel.title);
        for part in 0..=PARTS {
            let share = f64::from(part) / f64::from(PARTS);
            let y = top + PANEL * (1.0 - share);
            self.line(format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>"
            ));
            self.label(LEFT - 8.0, y + 4.0, "end", "", &(panel.words)(panel.most * share));
        }
        let Axis { from, to, parts, words } = self.axis;
        for part in 0..=parts {
            let at = from + (to - from) * f64::from(part) / f64::from(parts.max(1));
            let x = self.x(at);
            self.line(format_args!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#888888\"/>",
                top + PANEL,
                top + PANEL + 4.0
            ));
            self.label(x, top + PANEL + 17.0, "middle", "", &words(at));
        }
        let mut y = top + 10.0;
        for (curve, colour) in panel.curves.iter().zip(COLOURS.iter().cycle()) {
            self.curve(top, curve, colour, panel.most);
            self.line(format_args!(
                "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                RIGHT + 12.0,
                RIGHT + 32.0
            ));
            self.label(RIGHT + 38.0, y + 4.0, "start", "", curve.name);
            y += 18.0;
        }
        self.bottom += PANEL + GAP;
    }

    /// The drawing as a file's content.
    pub fn finish(self) -> String {
        let (body, height) = (self.body, self.bottom);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>.title {{ font-size: 16px; font-weight: bold }} .panel {{ font-weight: bold }}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    fn curve(&mut self, top: f64, curve: &Curve<'_>, colour: &str, most: f64) {
        let place = |amount: f64| top + PANEL * (1.0 - amount / if most > 0.0 { most } else { 1.0 });
        let places: Vec<(f64, f64)> = curve.points.iter().map(|(at, n)| (self.x(*at), place(*n))).collect();
        let mut points = String::new();
        for (x, y) in &places {
            write!(points, "{x:.1},{y:.1} ").ok(); // Writing to a string cannot fail.
        }
        self.line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.trim_end()
        ));
        for (x, y) in places.iter().filter(|_| curve.marks) {
            self.line(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
    }

    fn x(&self, at: f64) -> f64 {
        let Axis { from, to, .. } = self.axis;
        LEFT + (RIGHT - LEFT) * (at - from) / if to > from { to - from } else { 1.0 }
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escaped(text);
        self.line(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    /// Adds a line. Writing to a string cannot fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{line}").ok();
    }
}

impl Curve<'_> {
    /// Its highest point; zero without points.
    pub fn most(&self) -> f64 {
        self.points.iter().map(|(_, amount)| *amount).fold(0.0, f64::max)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(n: f64) -> String {
        format!("{n}")
    }

    #[test]
    fn every_tag_is_closed_and_text_is_escaped() {
        let axis = Axis { from: 128.0, to: 256.0, parts: 4, words: &plain };
        let mut drawing = Drawing::new("a < b & c", axis);
        drawing.band("state", &[Stretch { from: 128.0, to: 192.0, colour: "#fff" }], &[("high", "#fff")]);
        let curve = |marks| Curve { name: "x", points: vec![(128.0, 0.0), (256.0, 10.0)], marks };
        let curves = [curve(false), curve(true)];
        drawing.panel(&Panel { title: "p", curves: &curves, most: 10.0, words: &plain });
        let text = drawing.finish();
        assert!(text.contains("a &lt; b &amp; c") && text.ends_with("</svg>\n"), "{text}");
        assert_eq!(text.matches("<text").count(), text.matches("</text>").count());
        assert_eq!((text.matches("<polyline").count(), text.matches("<circle").count()), (2, 2));
        // From the lower left to the upper right corner.
        assert!(text.contains("points=\"80.0,274.0 830.0,84.0\""), "{text}");
    }

    #[test]
    fn nothing_to_show_is_no_number_out_of_bounds() {
        let axis = Axis { from: 0.0, to: 0.0, parts: 0, words: &plain };
        let mut drawing = Drawing::new("", axis);
        let curves = [Curve { name: "none", points: vec![(0.0, 0.0)], marks: true }];
        drawing.panel(&Panel { title: "", curves: &curves, most: 0.0, words: &plain });
        let text = drawing.finish();
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
