//! Columns of figures that line up.

use std::io::{self, Write};

use super::text::{BOLD, paint, width};

/// Between two columns.
const GAP: &str = "  ";

/// The alignment of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Names.
    Left,
    /// Figures.
    Right,
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    name: &'static str,
    align: Align,
    cells: Vec<String>,
    width: usize,
    /// May be left out where the width is small.
    optional: bool,
}

impl Column {
    /// A column with a cell for each row.
    pub(super) fn new(name: &'static str, align: Align, cells: impl IntoIterator<Item = String>) -> Self {
        let cells: Vec<String> = cells.into_iter().collect();
        let widest = cells.iter().map(|it| width(it)).max().unwrap_or_default();
        Self {
            name,
            align,
            width: widest.max(width(name)),
            cells,
            optional: false,
        }
    }

    /// A cell, padded.
    fn padded(&self, text: &str) -> String {
        let padding = " ".repeat(self.width - width(text));
        match self.align {
            Align::Left => format!("{text}{padding}"),
            Align::Right => format!("{padding}{text}"),
        }
    }
}

/// Columns side by side; what follows them on a line is of any length.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Adds a column that stays.
    pub(super) fn push_fixed(&mut self, column: Column) {
        self.0.push(column);
    }

    /// Adds a column that stays, if there is one.
    pub(super) fn extend(&mut self, column: Option<Column>) {
        self.0.extend(column);
    }

    /// Adds a column that gives way where the width is small.
    pub(super) fn push(&mut self, column: Column) {
        self.0.push(Column {
            optional: true,
            ..column
        });
    }

    /// The width of all columns and of the gaps after them.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|it| it.width + width(GAP)).sum()
    }

    /// Leaves out columns, the last first, until the rest is at most `room` wide or none can be
    /// left out.
    pub(super) fn shrink_to(&mut self, room: usize) {
        while self.width() > room {
            match self.0.iter().rposition(|it| it.optional) {
                Some(index) => self.0.remove(index),
                None => break,
            };
        }
    }

    /// Writes the names of the columns and of what follows them.
    pub(super) fn write_header(&self, last: &str, colours: bool, out: &mut dyn Write) -> io::Result<()> {
        let names = self.0.iter().map(|it| it.padded(it.name));
        let line = joined(names, last);
        writeln!(out, "{}", paint(&line, BOLD, colours))
    }

    /// Writes one row and what follows it.
    pub(super) fn write_row(&self, row: usize, last: &str, out: &mut dyn Write) -> io::Result<()> {
        let cells = self.0.iter().map(|it| it.padded(&it.cells[row]));
        writeln!(out, "{}", joined(cells, last))
    }
}

/// Cells with gaps between them, without spaces at the end.
fn joined(cells: impl Iterator<Item = String>, last: &str) -> String {
    let mut line: String = cells.flat_map(|it| [it, GAP.to_owned()]).collect();
    line.push_str(last);
    line.truncate(line.trim_end().len());
    line
}
