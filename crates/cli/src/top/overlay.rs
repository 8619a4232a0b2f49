use crossterm::event::KeyCode;
use plimsoll_text::without_controls;

use crate::vm_field::{FIELDS, VmField};

/// What lies over the table and has the keyboard.
#[derive(Debug)]
pub(super) enum Overlay {
    /// The filter is being typed.
    Filter,
    Columns(Columns),
    Text(Text),
}

/// A list of columns to choose from.
#[derive(Debug)]
pub(super) struct Columns {
    /// All there are, those that are shown first, in their order.
    all: Vec<(VmField, bool)>,
    at: usize,
}

impl Columns {
    pub(super) fn of(shown: Vec<VmField>) -> Self {
        let rest = FIELDS.into_iter().filter(|field| !shown.contains(field)).map(|field| (field, false));
        let rest: Vec<_> = rest.collect();
        Self { all: shown.into_iter().map(|field| (field, true)).chain(rest).collect(), at: 0 }
    }

    /// Those that are to be shown. The name always is: rows are told apart by it.
    pub(super) fn chosen(&self) -> Vec<VmField> {
        self.all.iter().filter(|(field, shown)| *shown || is_name(*field)).map(|(field, _)| *field).collect()
    }

    /// Does what a key stands for. Returns whether it ends the choice.
    pub(super) fn press(&mut self, key: KeyCode) -> bool {
        let last = self.all.len() - 1;
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.at = self.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.at = (self.at + 1).min(last),
            KeyCode::PageUp => self.at = self.at.saturating_sub(10),
            KeyCode::PageDown => self.at = (self.at + 10).min(last),
            KeyCode::Char(' ') => self.all[self.at].1 = !self.all[self.at].1,
            KeyCode::Char('-') if self.at > 0 => {
                self.all.swap(self.at, self.at - 1);
                self.at -= 1;
            }
            KeyCode::Char('+') if self.at < last => {
                self.all.swap(self.at, self.at + 1);
                self.at += 1;
            }
            KeyCode::Enter | KeyCode::Esc | KeyCode::Char('c' | 'q') => return true,
            _ => {}
        }
        false
    }

    /// A line for each column, and which of them the next key is for.
    pub(super) fn lines(&self) -> (Vec<String>, usize) {
        let mark = |shown| if shown { 'x' } else { ' ' };
        let line = |(field, shown): &(VmField, bool)| {
            format!("[{}] {:<9}  {}", mark(*shown || is_name(*field)), field.column().title(), field.key())
        };
        (self.all.iter().map(line).collect(), self.at)
    }
}

fn is_name(field: VmField) -> bool {
    field.key() == "name"
}

/// A text to be read.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) title: String,
    lines: Vec<String>,
    above: usize,
}

impl Text {
    pub(super) fn new(title: &str, text: &str) -> Self {
        Self { title: title.to_owned(), lines: text.lines().map(without_controls).collect(), above: 0 }
    }

    /// The text after a key. `None`: the key closes it.
    pub(super) fn press(mut self, key: KeyCode, page: usize) -> Option<Self> {
        match key {
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.above += 1,
            KeyCode::PageUp => self.above = self.above.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => self.above += page,
            KeyCode::Home => self.above = 0,
            KeyCode::Enter | KeyCode::Esc | KeyCode::Char('q' | 'h' | '?') => return None,
            _ => {}
        }
        self.above = self.above.min(self.lines.len().saturating_sub(1));
        Some(self)
    }

    /// The lines from the first that is to be seen on.
    pub(super) fn rest(&self) -> &[String] {
        &self.lines[self.above.min(self.lines.len())..]
    }
}
