use std::collections::VecDeque;

use plimsoll_policy::State;
use plimsoll_text::without_controls;
use plimsoll_units::Bytes;
use plimsoll_words::local_time::to_the_second;
use plimsoll_words::{note, stall};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline};

use super::bar::bar;
use super::look::{Look, Seen};
use super::overlay::Overlay;
use super::pane::Pane;
use super::rows::{GAP, Row, Rows, layout};
use super::view::View;

/// Lines above the table.
const HEAD: u16 = 6;
/// Of the curves beside the host's lines, in characters. They are left out where lines need the
/// room.
const CURVE: u16 = 40;
/// A screen that is less wide has no room for curves.
const WIDE: u16 = 120;
/// The widest text that can still be read.
const TEXT: u16 = 100;

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, seen: &Seen) {
    let [head, titles, table, remark, keys] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let rows = view.rows(seen);
    view.settle(&rows, table.height.into());
    host(frame, head, view, &seen.look);
    list(frame, titles, table, view, &rows);
    frame.render_widget(Line::from(remark_of(view, seen)), remark);
    frame.render_widget(Line::styled(keys_of(view), reverse()), keys);
    overlay(frame, titles.union(table), view);
}

/// How many rows of the table a screen of this height shows.
pub(super) fn page(height: u16) -> usize {
    height.saturating_sub(HEAD + 3).max(1).into()
}

/// The lines about the host, and the panes.
fn host(frame: &mut Frame<'_>, area: Rect, view: &View, look: &Look) {
    let host = &look.host;
    let stands = |count: u64| if count > 0 { format!("  {count} stalled") } else { String::new() };
    let state = Style::new().fg(colour(host.state)).add_modifier(Modifier::BOLD);
    let first = Line::from(vec![
        Span::raw(format!("{}  state ", to_the_second(look.at))),
        Span::styled(host.state.to_string(), state),
        Span::raw(format!("  {} of {} VMs on", host.running, look.vms.len())),
        Span::styled(stands(host.stalled), bold()),
    ]);
    let lines = vec![
        first,
        bar(host, area.width),
        Line::from(format!(
            "budget {} = granted {} + overhead {} + frames {} + free {}",
            host.budget, host.granted, host.overhead, host.frames, host.free
        )),
        Line::from(format!(
            "held {}, balloons {}, shared {}, zero {}, compr {}, swapped {}",
            host.held, host.ballooned, host.shared, host.zero, host.compressed, host.swapped
        )),
        Line::from(format!("stalled {}", stall::of_host(&host.stall))),
        panes(view),
    ];
    frame.render_widget(Paragraph::new(lines), area);
    if area.width >= WIDE {
        let free = |most| format!("free, up to {}", Bytes(most));
        curve(frame, area, 2, free, &view.trend.free, Color::Green);
        let stalled = |most| format!("stalled, up to {}.{:02}%", most / 100, most % 100);
        curve(frame, area, 4, stalled, &view.trend.stalled, Color::Red);
    }
}

/// A curve at the right end of a line, the latest value last, as high as the highest value that it
/// shows. `title` names it, and that value.
fn curve(
    frame: &mut Frame<'_>,
    area: Rect,
    line: u16,
    title: impl Fn(u64) -> String,
    values: &VecDeque<u64>,
    colour: Color,
) {
    let values: Vec<u64> = values.iter().copied().skip(values.len().saturating_sub(CURVE.into())).collect();
    let most = values.iter().copied().max().unwrap_or(0);
    let title = title(most);
    let right = area.x + area.width - CURVE;
    let label = u16::try_from(title.len()).unwrap_or(0) + 1;
    let before = Rect { x: right.saturating_sub(label), y: area.y + line, width: label, height: 1 };
    let place = Rect { x: right, width: CURVE, ..before };
    frame.render_widget(Line::styled(title, dim()), before);
    frame.render_widget(Sparkline::default().data(values).style(Style::new().fg(colour)), place);
}

fn panes(view: &View) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, pane) in (1..).zip(Pane::ALL) {
        let chosen = pane == view.choice.pane;
        let text = format!("{number} {}", pane.title());
        spans
            .push(Span::styled(text, if chosen { bold().add_modifier(Modifier::UNDERLINED) } else { dim() }));
        spans.push(Span::raw("  "));
    }
    if !view.filter.is_empty() {
        spans.push(Span::styled(format!("  with {:?}", view.filter), bold()));
    }
    Line::from(spans)
}

/// The table, as much of it as there is room for.
fn list(frame: &mut Frame<'_>, titles: Rect, area: Rect, view: &View, rows: &Rows) {
    let columns = layout(rows, view.first_column, area.width.into());
    let order = if view.choice.order().1 { '^' } else { 'v' };
    let title = |column: usize| {
        let title = rows.columns[column].title();
        if rows.ordered_by == Some(column) { (title, bold(), order) } else { (title, dim(), ' ') }
    };
    let mut spans = Vec::new();
    for &(column, width) in &columns {
        let (text, style, mark) = title(column);
        spans.push(Span::styled(rows.columns[column].cell(text, width), style));
        // The mark stands in the gap.
        spans.push(Span::styled(format!("{mark:<GAP$}"), style));
    }
    frame.render_widget(Line::from(spans), titles);
    let shown = rows.rows.iter().skip(view.above).take(area.height.into());
    let lines = shown.map(|row| {
        let selected = view.selected.as_ref() == Some(&row.name);
        let style = if selected { reverse() } else { style_of(row) };
        Line::styled(text_of(row, rows, &columns), style)
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    if rows.rows.is_empty() {
        frame.render_widget(Line::styled(nothing(view), dim()), area);
    }
}

fn text_of(row: &Row, rows: &Rows, columns: &[(usize, usize)]) -> String {
    let cells = columns.iter().map(|&(column, width)| {
        let text: String = without_controls(&row.cells[column]).chars().take(width).collect();
        rows.columns[column].cell(&text, width)
    });
    cells.collect::<Vec<_>>().join(&" ".repeat(GAP))
}

fn nothing(view: &View) -> String {
    if !view.filter.is_empty() {
        return format!("nothing has {:?} in its name, pool or labels: Esc shows all", view.filter);
    }
    match view.choice.pane {
        Pane::Pools => "no pools: make one with plimsoll pool create NAME".to_owned(),
        _ => "no VMs: define and start one with plimsoll run DEF.toml".to_owned(),
    }
}

/// What is unusual about the row that is looked at; in its place what went wrong, if anything did.
fn remark_of(view: &View, seen: &Seen) -> Span<'static> {
    if let Some(message) = view.message.as_ref().or(view.unseen.as_ref()) {
        return Span::styled(without_controls(message), bold());
    }
    let selected = view.selected.as_ref().filter(|_| view.choice.pane != Pane::Pools);
    let vm = selected.and_then(|name| seen.look.vms.iter().find(|vm| vm.name.to_string() == **name));
    let text = vm.map(|vm| (vm.name.clone(), note(vm))).filter(|(_, note)| !note.is_empty());
    let text = text.map_or_else(String::new, |(name, note)| format!("{name}: {note}"));
    Span::raw(without_controls(&text))
}

fn keys_of(view: &View) -> String {
    match &view.overlay {
        Some(Overlay::Filter) => format!("show only what has this in its name: {}_", view.filter),
        Some(Overlay::Columns(_)) => "Space shows or hides  + - move  Enter done".to_owned(),
        Some(Overlay::Text(_)) => "arrows, PgUp, PgDn  Enter closes".to_owned(),
        None => {
            "q leaves  h help  1-5 pane  < > r order  / filter  c columns  Enter explain  w keep".to_owned()
        }
    }
}

/// What lies over the table.
fn overlay(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let (title, lines, at) = match &view.overlay {
        None | Some(Overlay::Filter) => return,
        Some(Overlay::Columns(columns)) => {
            let (lines, at) = columns.lines();
            // The line that keys are for is always to be seen.
            let above = at.saturating_sub(usize::from(area.height).saturating_sub(3));
            ("columns", lines[above..].to_vec(), Some(at - above))
        }
        Some(Overlay::Text(text)) => (text.title.as_str(), text.rest().to_vec(), None),
    };
    let area = Rect { width: area.width.min(TEXT), ..area };
    let style = |line| if Some(line) == at { reverse() } else { Style::new() };
    let lines: Vec<Line<'_>> =
        lines.into_iter().enumerate().map(|(number, line)| Line::styled(line, style(number))).collect();
    let text = Paragraph::new(lines).block(Block::bordered().title(format!(" {title} ")));
    frame.render_widget(Clear, area);
    frame.render_widget(text.wrap(ratatui::widgets::Wrap { trim: false }), area);
}

fn style_of(row: &Row) -> Style {
    match (row.waits, row.runs) {
        (true, _) => bold().fg(Color::Red),
        (false, true) => Style::new(),
        (false, false) => dim(),
    }
}

fn colour(state: State) -> Color {
    match state {
        State::High | State::Clear => Color::Green,
        State::Soft => Color::Yellow,
        State::Hard | State::Low => Color::Red,
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn reverse() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}
