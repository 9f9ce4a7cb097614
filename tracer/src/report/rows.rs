//! Rows of figures that line up, each with a stack behind them, for reports that are not
//! [`table`](super::table)'s.

use std::io::{self, Write};

use super::label;
use super::merge::Completeness;
use tracer_ebpf::Function;

/// Between two columns.
const GAP: &str = "  ";

/// The fewest characters of a stack.
const MIN_STACK_WIDTH: usize = 28;

/// The columns' names, and the name of what is behind them.
pub(super) struct AlignedRows<'a> {
    /// The names of the columns of figures.
    pub(super) names: &'a [&'a str],
    /// The name of the rest of a line.
    pub(super) last: &'a str,
    /// The figures of each row, one for each name, and the rest of its line.
    pub(super) lines: Vec<(Vec<String>, String)>,
}

impl AlignedRows<'_> {
    /// Writes an empty line, the names, and the rows. Where lines are too long for the width, the
    /// rest loses its end.
    pub(super) fn write(&self, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let widths: Vec<usize> = self
            .names
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = self.lines.iter().filter_map(|(cells, _)| cells.get(column));
                let widest = cells.map(|it| it.chars().count()).max().unwrap_or_default();
                widest.max(name.chars().count())
            })
            .collect();
        let used: usize = widths.iter().map(|it| it + GAP.len()).sum();
        let room = width.map(|width| width.saturating_sub(used).max(MIN_STACK_WIDTH));
        let line = |cells: &mut dyn Iterator<Item = &str>, rest: &str| {
            let padded = cells
                .zip(&widths)
                .map(|(cell, width)| format!("{}{cell}{GAP}", " ".repeat(width - cell.chars().count())));
            format!("{}{}", padded.collect::<String>(), cut(rest, room))
        };
        writeln!(out)?;
        writeln!(out, "{}", line(&mut self.names.iter().copied(), self.last))?;
        for (cells, rest) in &self.lines {
            writeln!(out, "{}", line(&mut cells.iter().map(String::as_str), rest))?;
        }
        Ok(())
    }
}

/// The text without what does not fit.
fn cut(text: &str, room: Option<usize>) -> String {
    match room {
        Some(room) if text.chars().count() > room => {
            let kept = text.chars().take(room.saturating_sub(1));
            kept.chain(['…']).collect()
        }
        _ => text.to_owned(),
    }
}

/// A stack on one line, from the function that was called outwards. `callers` go from the innermost
/// to the outermost.
pub(super) fn stack_line(
    function: Function,
    callers: impl Iterator<Item = String>,
    walk: Completeness,
) -> String {
    let called = (function != Function::Unknown).then(|| function.name().to_owned());
    let mark = match walk {
        Completeness::Whole => None,
        Completeness::Truncated => Some(label::TRUNCATED.to_owned()),
        Completeness::Lost => Some(label::STACK_LOST.to_owned()),
    };
    let names: Vec<String> = called.into_iter().chain(callers).chain(mark).collect();
    if names.is_empty() {
        return function.name().to_owned();
    }
    names.join(" ← ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(width: Option<usize>) -> String {
        let rows = AlignedRows {
            names: &["BYTES", "±"],
            last: "STACK",
            lines: vec![
                (vec!["1".to_owned(), "±2 %".to_owned()], "a".repeat(40)),
                (vec!["1,234,567".to_owned(), String::new()], "b".to_owned()),
            ],
        };
        let mut out = Vec::new();
        rows.write(width, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn figures_line_up_and_lines_fit() {
        let whole = text(None);
        assert_eq!(
            whole,
            format!(
                "\n    BYTES     ±  STACK\n        1  ±2 %  {}\n1,234,567        b\n",
                "a".repeat(40)
            )
        );
        for width in [46, 50, 56] {
            let lines = text(Some(width));
            assert!(lines.lines().all(|it| it.chars().count() <= width), "{lines}");
            assert!(lines.contains("a…"));
        }
        assert_eq!(text(Some(57)), whole);
    }

    #[test]
    fn stacks_begin_with_what_was_called() {
        let line = |function, callers: &[&str], walk| {
            stack_line(function, callers.iter().map(|it| (*it).to_owned()), walk)
        };
        assert_eq!(
            line(Function::Malloc, &["f", "main"], Completeness::Whole),
            "malloc ← f ← main"
        );
        assert_eq!(
            line(Function::Unknown, &["f"], Completeness::Truncated),
            "f ← [truncated]"
        );
        assert_eq!(
            line(Function::Malloc, &[], Completeness::Lost),
            "malloc ← [stack lost]"
        );
        assert_eq!(line(Function::Unknown, &[], Completeness::Whole), "[allocation]");
    }
}
