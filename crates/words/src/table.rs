//! Tables and lists of facts.

/// A table of text: the first column and those made with [`Column::left`] are aligned to the left,
/// numbers to the right.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column's title and the side that its cells are aligned to.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    right: bool,
}

impl Column {
    /// A column of words.
    pub const fn left(title: &'static str) -> Self {
        Self { title, right: false }
    }

    /// A column of numbers.
    pub const fn right(title: &'static str) -> Self {
        Self { title, right: true }
    }

    /// What stands above it.
    pub fn title(self) -> &'static str {
        self.title
    }

    /// A cell of it, `width` characters long, or longer where the text is.
    pub fn cell(self, text: &str, width: usize) -> String {
        if self.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    }
}

/// Blanks between columns: two keep sizes apart at a glance, more would not leave `top` within 100
/// characters.
const GAP: &str = "  ";

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.to_vec());
    }

    /// Adds a row of as many cells as there are columns.
    pub fn cells(&mut self, cells: Vec<String>) {
        debug_assert!(cells.len() <= self.columns.len(), "more cells than columns");
        self.rows.push(cells);
    }

    /// The lines, the titles first, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let titles = self.columns.iter().map(|c| c.title.to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| all.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect();
        all.iter().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row
            .iter()
            .zip(&self.columns)
            .zip(widths)
            .map(|((cell, column), &width)| column.cell(cell, width));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    }

    /// The lines as one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }
}

/// Facts of one thing, one a line: names aligned, values after them.
pub fn list(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = facts.iter().map(|(name, value)| format!("{name:<width$}  {value}").trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lean_left_and_numbers_right() {
        let mut table = Table::new(&[Column::left("NAME"), Column::right("SIZE"), Column::left("STATE")]);
        table.row(["a".into(), "512MiB".into(), "on".into()]);
        table.row(["überlang".into(), "1GiB".into(), String::new()]);
        table.row(["b".into()]);
        let expected = "\
NAME        SIZE  STATE
a         512MiB  on
überlang    1GiB
b";
        assert_eq!(table.text(), expected);
    }

    #[test]
    fn a_table_without_rows_still_says_what_it_would_hold() {
        assert_eq!(Table::new(&[Column::left("A"), Column::left("B")]).text(), "A  B");
    }

    #[test]
    fn a_list_aligns_its_values() {
        assert_eq!(list(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
