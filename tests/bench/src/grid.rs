//! A Markdown table whose columns line up as plain text too.

use std::iter::repeat_n;

/// The side that a column's text is aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table under construction.
pub(crate) struct Grid {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table of these columns: their titles, and where their text stands.
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that it has too few of are empty.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "/")).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// The table, a line each for the titles, the rule and the rows.
    pub(crate) fn markdown(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        let mut text = String::new();
        let titles = self.columns.iter().map(|(title, _)| (*title).to_owned());
        self.line(&mut text, &titles.collect::<Vec<_>>(), &widths);
        let rules = self
            .columns
            .iter()
            .zip(&widths)
            .map(|((_, side), &width)| match side {
                Side::Left => "-".repeat(width),
                Side::Right => format!("{}:", "-".repeat(width - 1)),
            });
        self.line(&mut text, &rules.collect::<Vec<_>>(), &widths);
        for row in &self.rows {
            self.line(&mut text, row, &widths);
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let title = self.columns[column].0.chars().count();
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells.chain([title, 3]).max().unwrap_or(3)
    }

    fn line(&self, text: &mut String, cells: &[String], widths: &[usize]) {
        for ((cell, &width), (_, side)) in cells.iter().zip(widths).zip(&self.columns) {
            let gap = repeat_n(' ', width - cell.chars().count());
            text.push_str("| ");
            match side {
                Side::Left => {
                    text.push_str(cell);
                    text.extend(gap);
                }
                Side::Right => {
                    text.extend(gap);
                    text.push_str(cell);
                }
            }
            text.push(' ');
        }
        text.push_str("|\n");
    }
}

/// A figure, or a dash.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// Nanoseconds to read: with thousands grouped, and a digit after the point below a hundred.
pub(crate) fn nanoseconds(value: Option<f64>) -> String {
    let digits = usize::from(value.is_some_and(|value| value < 100.0));
    group(&cell(value, digits))
}

/// A ratio to read, with about three digits.
pub(crate) fn ratio(value: Option<f64>) -> String {
    let digits = match value {
        Some(value) if value >= 100.0 => 0,
        Some(value) if value >= 10.0 => 1,
        _ => 2,
    };
    group(&cell(value, digits))
}

/// `1234567.8` as `1,234,567.8`.
pub(crate) fn group(number: &str) -> String {
    let (whole, rest) = number
        .split_once('.')
        .map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let length = whole.chars().count();
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (length - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    rest.map_or_else(|| text.clone(), |rest| format!("{text}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut grid = Grid::new(&[("tool", Side::Left), ("ns", Side::Right)]);
        grid.row(vec!["a|b".to_owned(), "12".to_owned()]);
        grid.row(vec!["×".to_owned()]);
        assert_eq!(
            grid.markdown(),
            "| tool |  ns |\n| ---- | --: |\n| a/b  |  12 |\n| ×    |     |\n"
        );
    }

    #[test]
    fn figures() {
        assert_eq!(nanoseconds(Some(8.31)), "8.3");
        assert_eq!(nanoseconds(Some(1_234_567.8)), "1,234,568");
        assert_eq!(nanoseconds(None), "–");
        assert_eq!(ratio(Some(0.357)), "0.36");
        assert_eq!(ratio(Some(21_000.4)), "21,000");
        assert_eq!(group("-123"), "-123");
        assert_eq!(group("-1234.5"), "-1,234.5");
    }
}
