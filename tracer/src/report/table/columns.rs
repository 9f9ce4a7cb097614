//! Columns of figures that line up.

use std::io::{self, Write};

use super::text::{BOLD, Charset, paint, width};

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
    /// The widest cell; known when the column is among others.
    width: usize,
    /// May be left out where the width is small.
    optional: bool,
}

impl Column {
    /// A column with a cell for each row.
    pub(super) fn new(name: &'static str, align: Align, cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            name,
            align,
            width: 0,
            cells: cells.into_iter().collect(),
            optional: false,
        }
    }

    /// Writes the cells in a set of characters, and measures them.
    fn shown(mut self, charset: Charset) -> Self {
        for cell in &mut self.cells {
            *cell = charset.show(cell).into_owned();
        }
        let widest = self.cells.iter().map(|it| width(it)).max().unwrap_or_default();
        self.width = widest.max(charset.width(self.name));
        self
    }

    /// A cell, padded.
    fn padded(&self, text: &str) -> String {
        let padding = " ".repeat(self.width.saturating_sub(width(text)));
        match self.align {
            Align::Left => format!("{text}{padding}"),
            Align::Right => format!("{padding}{text}"),
        }
    }
}

/// Columns side by side; what follows them on a line is of any length.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    charset: Charset,
    columns: Vec<Column>,
}

impl Columns {
    /// No columns, for a set of characters.
    pub(super) fn new(charset: Charset) -> Self {
        Self {
            charset,
            columns: Vec::new(),
        }
    }

    /// Adds a column that stays.
    pub(super) fn push_fixed(&mut self, column: Column) {
        self.columns.push(column.shown(self.charset));
    }

    /// Adds a column that stays, if there is one.
    pub(super) fn extend(&mut self, column: Option<Column>) {
        self.columns
            .extend(column.map(|column| column.shown(self.charset)));
    }

    /// Adds a column that gives way where the width is small.
    pub(super) fn push(&mut self, column: Column) {
        self.columns.push(Column {
            optional: true,
            ..column.shown(self.charset)
        });
    }

    /// The width of all columns and of the gaps after them.
    pub(super) fn width(&self) -> usize {
        self.columns.iter().map(|it| it.width + width(GAP)).sum()
    }

    /// Leaves out columns, the last first, until the rest is at most `room` wide or none can be
    /// left out.
    pub(super) fn shrink_to(&mut self, room: usize) {
        while self.width() > room {
            match self.columns.iter().rposition(|it| it.optional) {
                Some(index) => self.columns.remove(index),
                None => break,
            };
        }
    }

    /// Writes the names of the columns and of what follows them.
    pub(super) fn write_header(&self, last: &str, colours: bool, out: &mut dyn Write) -> io::Result<()> {
        let names = self
            .columns
            .iter()
            .map(|it| it.padded(&self.charset.show(it.name)));
        let line = joined(names, last);
        writeln!(out, "{}", paint(&line, BOLD, colours))
    }

    /// Writes one row and what follows it.
    pub(super) fn write_row(&self, row: usize, last: &str, out: &mut dyn Write) -> io::Result<()> {
        let cells = self.columns.iter().map(|it| it.padded(&it.cells[row]));
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
