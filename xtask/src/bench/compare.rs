//! Rows set beside each other, and judged.

use super::measure::{Row, median};
use super::tools::{Role, Tool};

/// What of a row is set beside the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// All of it: whole tools.
    Whole,
    /// What it adds to the base: a walk without a tool around it.
    Addition,
}

/// A row with its figures set beside those of the base and of the reference: of the same depth and the same
/// build of the loop.
pub(crate) struct Line<'a> {
    pub(crate) tool: &'a Tool,
    pub(crate) row: &'a Row,
    pub(crate) median_ns: Option<f64>,
    pub(crate) over_base_ns: Option<f64>,
    pub(crate) of_base: Option<f64>,
    pub(crate) of_reference: Option<f64>,
}

/// Whether a limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Pass,
    /// It is not, or calls were missed.
    Fail,
    /// There are not both figures.
    Unknown,
}

impl Verdict {
    /// The word that begins its sentence.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The verdict on a figure that may be at most so much.
    pub(crate) fn on(figure: Option<f64>, limit: f64) -> Self {
        match figure {
            Some(figure) if figure <= limit => Self::Pass,
            Some(_) => Self::Fail,
            None => Self::Unknown,
        }
    }
}

/// Sets all rows beside each other.
pub(crate) fn compare<'a>(tools: &'a [Tool], rows: &'a [Row], share: Share) -> Vec<Line<'a>> {
    let median_of = |row: &Row| median(&mut row.round_ns.clone());
    rows.iter()
        .map(|row| {
            let tool = &tools[row.tool];
            let beside = |role: Role| {
                let fits = |other: &&Row| {
                    let candidate = &tools[other.tool];
                    other.depth == row.depth && candidate.role == role && candidate.build == tool.build
                };
                rows.iter().find(fits).and_then(median_of)
            };
            let (base, reference) = (beside(Role::Base), beside(Role::Reference));
            let median_ns = median_of(row);
            let part = |median: f64| match share {
                Share::Whole => Some(median),
                Share::Addition => base.map(|base| median - base),
            };
            Line {
                tool,
                row,
                median_ns,
                over_base_ns: median_ns.zip(base).map(|(own, base)| own - base),
                of_base: median_ns.zip(base).map(|(own, base)| own / base),
                of_reference: median_ns
                    .and_then(part)
                    .zip(reference.and_then(part))
                    .map(|(own, reference)| own / reference),
            }
        })
        .collect()
}

impl Line<'_> {
    /// The limit that it has to keep, and whether it does.
    pub(crate) fn verdict(&self) -> Option<(f64, Verdict)> {
        let Role::Subject(limit, from_depth) = self.tool.role else {
            return None;
        };
        if self.row.depth < from_depth {
            return None;
        }
        let missed = self.row.count_error.is_some_and(|calls| calls != 0);
        let verdict = if self.row.problem.is_some() || missed {
            Verdict::Fail
        } else {
            Verdict::on(self.of_reference, limit)
        };
        Some((limit, verdict))
    }
}

/// Whether every limit is kept.
pub(crate) fn passes(lines: &[Line<'_>]) -> bool {
    lines
        .iter()
        .filter_map(Line::verdict)
        .all(|(_, verdict)| verdict == Verdict::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::target::Build;
    use crate::bench::tools::Way;

    fn tool(role: Role, build: Build) -> Tool {
        Tool {
            name: "a tool",
            role,
            build,
            way: Way::Alone,
        }
    }

    fn row(tool: usize, ns: f64) -> Row {
        Row {
            tool,
            depth: 20,
            round_ns: vec![ns],
            min_ns: ns,
            count_error: Some(0),
            frames: None,
            problem: None,
        }
    }

    #[test]
    fn shares_and_verdicts() {
        let tools = [
            tool(Role::Base, Build::FramePointers),
            tool(Role::Subject(0.5, 0), Build::FramePointers),
            tool(Role::Reference, Build::FramePointers),
            tool(Role::Base, Build::NoFramePointers),
            tool(Role::Other, Build::NoFramePointers),
        ];
        let mut rows = [
            row(0, 100.0),
            row(1, 160.0),
            row(2, 300.0),
            row(3, 10.0),
            row(4, 20.0),
        ];
        let share_of = |share, rows: &[Row]| compare(&tools, rows, share)[1].of_reference;
        assert_eq!(share_of(Share::Whole, &rows), Some(160.0 / 300.0));
        assert_eq!(share_of(Share::Addition, &rows), Some(0.3));
        assert!(!passes(&compare(&tools, &rows, Share::Whole)));
        assert!(passes(&compare(&tools, &rows, Share::Addition)));

        let lines = compare(&tools, &rows, Share::Whole);
        assert_eq!((lines[4].of_base, lines[4].of_reference), (Some(2.0), None));

        rows[1].count_error = Some(-1);
        assert!(!passes(&compare(&tools, &rows, Share::Addition)));
        rows[1].count_error = None;
        rows[2].round_ns.clear();
        let lines = compare(&tools, &rows, Share::Addition);
        assert_eq!(lines[1].verdict(), Some((0.5, Verdict::Unknown)));
        assert!(!passes(&lines));
    }
}
