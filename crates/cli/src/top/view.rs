use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use plimsoll_protocol::VmName;

use super::choice::Choice;
use super::look::Seen;
use super::overlay::{Columns, Overlay, Text};
use super::pane::Pane;
use super::rows::Rows;
use super::{help, trend::Trend};

/// The shortest and the longest time between two looks that keys choose.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(64));

/// What is looked at. Keys change it, and nothing else.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) choice: Choice,
    /// Only rows with this in their names are shown.
    pub(super) filter: String,
    /// The row that is looked at.
    pub(super) selected: Option<String>,
    /// How many rows are above the first on the screen.
    pub(super) above: usize,
    /// The first column that is shown, besides the name.
    pub(super) first_column: usize,
    /// What lies over the table.
    pub(super) overlay: Option<Overlay>,
    pub(super) interval: Duration,
    /// What a key has done, or why it could not.
    pub(super) message: Option<String>,
    /// Why the table is not of this moment.
    pub(super) unseen: Option<String>,
    pub(super) trend: Trend,
}

/// What is to be done outside of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Leave,
    Explain(VmName),
    /// Keep on disk what is shown.
    Save,
    Look(Duration),
}

impl View {
    /// Does what a key stands for. `page` is the number of rows on the screen.
    pub(super) fn press(&mut self, key: KeyEvent, seen: &Seen, page: usize) -> Option<Act> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Act::Leave);
        }
        self.message = None;
        match self.overlay.take() {
            Some(Overlay::Filter) => self.type_filter(key.code),
            Some(Overlay::Columns(columns)) => self.choose_columns(columns, key.code),
            Some(Overlay::Text(text)) => self.overlay = text.press(key.code, page).map(Overlay::Text),
            None => return self.command(key.code, seen, page),
        }
        None
    }

    fn command(&mut self, key: KeyCode, seen: &Seen, page: usize) -> Option<Act> {
        match key {
            KeyCode::Char('q') => return Some(Act::Leave),
            KeyCode::Esc if self.filter.is_empty() => return Some(Act::Leave),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char(digit @ '1'..='9') => self.show(digit),
            KeyCode::Tab => self.turn_to(self.choice.pane.moved(1)),
            KeyCode::BackTab => self.turn_to(self.choice.pane.moved(-1)),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(seen, -1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(seen, 1),
            KeyCode::PageUp => self.move_by(seen, -page.cast_signed()),
            KeyCode::PageDown | KeyCode::Char(' ') => self.move_by(seen, page.cast_signed()),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(seen, isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(seen, isize::MAX),
            KeyCode::Left => self.first_column = self.first_column.saturating_sub(1).max(1),
            KeyCode::Right => {
                let most = self.rows(seen).columns.len().saturating_sub(1).max(1);
                self.first_column = (self.first_column.max(1) + 1).min(most);
            }
            KeyCode::Char('<' | ',') => self.order_by_next(-1),
            KeyCode::Char('>' | '.') => self.order_by_next(1),
            KeyCode::Char('r') => {
                let (by, reversed) = self.choice.order();
                self.choice.set_order(by, !reversed);
            }
            KeyCode::Char('/') => self.overlay = Some(Overlay::Filter),
            KeyCode::Char('c') if self.choice.pane == Pane::Pools => {
                self.message = Some("pools have these columns only".to_owned());
            }
            KeyCode::Char('c') => {
                self.overlay = Some(Overlay::Columns(Columns::of(self.choice.columns())));
            }
            KeyCode::Char('h' | '?') | KeyCode::F(1) => {
                self.overlay = Some(Overlay::Text(Text::new("help", help::text())));
            }
            KeyCode::Char('w' | 'W') => return Some(Act::Save),
            KeyCode::Char('+') => return Some(self.look_every(self.interval / 2)),
            KeyCode::Char('-') => return Some(self.look_every(self.interval * 2)),
            KeyCode::Enter | KeyCode::Char('e') if self.choice.pane != Pane::Pools => {
                let name = self.selected.as_ref().and_then(|name| name.parse().ok());
                return name.map(Act::Explain);
            }
            _ => {}
        }
        None
    }

    pub(super) fn rows(&self, seen: &Seen) -> Rows {
        Rows::of(&self.choice, &self.filter, seen)
    }

    /// What the table's rows are at the moment, with one of them selected, and on the screen.
    pub(super) fn settle(&mut self, rows: &Rows, page: usize) {
        let at = self.selected.as_deref().and_then(|name| rows.position(name)).unwrap_or(0);
        self.selected = rows.rows.get(at).map(|row| row.name.clone());
        let last = rows.rows.len().saturating_sub(page);
        self.above = self.above.clamp((at + 1).saturating_sub(page.max(1)), at).min(last);
        self.first_column = self.first_column.clamp(1, rows.columns.len().saturating_sub(1).max(1));
    }

    fn show(&mut self, digit: char) {
        let pane = digit.to_digit(10).and_then(|digit| Pane::ALL.get(digit as usize - 1).copied());
        pane.into_iter().for_each(|pane| self.turn_to(pane));
    }

    fn turn_to(&mut self, pane: Pane) {
        self.choice.pane = pane;
        (self.first_column, self.above) = (1, 0);
    }

    fn move_by(&mut self, seen: &Seen, by: isize) {
        let rows = self.rows(seen);
        let at = self.selected.as_deref().and_then(|name| rows.position(name)).unwrap_or(0);
        let to = at.saturating_add_signed(by).min(rows.rows.len().saturating_sub(1));
        self.selected = rows.rows.get(to).map(|row| row.name.clone());
    }

    fn order_by_next(&mut self, by: isize) {
        if self.choice.pane == Pane::Pools {
            self.message = Some("pools stand in the order in which they lie in each other".to_owned());
            return;
        }
        let columns = self.choice.columns();
        let (now, _) = self.choice.order();
        let at = columns.iter().position(|field| *field == now).unwrap_or(0);
        let to = at.saturating_add_signed(by).min(columns.len() - 1);
        self.choice.set_order(columns[to], false);
    }

    fn look_every(&mut self, time: Duration) -> Act {
        self.interval = time.clamp(INTERVALS.0, INTERVALS.1);
        self.message = Some(format!("looks every {} ms", self.interval.as_millis()));
        Act::Look(self.interval)
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => return self.filter.clear(),
            KeyCode::Backspace => drop(self.filter.pop()),
            // No name is longer.
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
        self.overlay = Some(Overlay::Filter);
    }

    fn choose_columns(&mut self, mut columns: Columns, key: KeyCode) {
        let done = columns.press(key);
        self.choice.set_columns(&columns.chosen());
        if !done {
            self.overlay = Some(Overlay::Columns(columns));
        }
    }
}
