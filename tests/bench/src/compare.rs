//! Rows set beside each other, and judged.

use super::measure::{LoopRow, median};
use super::results::{Judgement, LimitVerdict, LoopLine, RowKind};
use super::target::Build;
use super::tools::{BEFORE, BenchTool, THREADS_LIMIT, THREADS_SUBJECTS};

/// The part of a row that is set beside another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComparedPart {
    /// All of it: whole tools.
    Whole,
    /// Its excess over the bare row: a walk without a tool around it.
    Addition,
}

/// The most that a row of memtap may cost, as a share of another row.
pub(crate) struct RatioLimit {
    pub(crate) subject: &'static str,
    pub(crate) reference: &'static str,
    pub(crate) share: f64,
    /// Frames from which on it holds.
    pub(crate) from_depth: u32,
    /// True if one of the two may be missing.
    pub(crate) optional: bool,
}

/// Sets all rows beside each other: those of the same depth and the same build of the loop.
pub(crate) fn lines(tools: &[BenchTool], rows: &[LoopRow], share: ComparedPart) -> Vec<LoopLine> {
    let median_of = |row: &LoopRow| median(&mut row.round_ns.clone());
    let line = |row: &LoopRow| {
        let tool = &tools[row.tool];
        let beside = |kind: RowKind| {
            let fits = |other: &&LoopRow| {
                let candidate = &tools[other.tool];
                other.depth == row.depth
                    && other.threads == row.threads
                    && candidate.kind == kind
                    && candidate.build == tool.build
            };
            rows.iter().find(fits).and_then(median_of)
        };
        let (bare, headline) = (beside(RowKind::Bare), beside(RowKind::Headline));
        let median_ns = median_of(row);
        let part = |median: f64| match share {
            ComparedPart::Whole => Some(median),
            ComparedPart::Addition => bare.map(|bare| median - bare),
        };
        let own = median_ns.and_then(part);
        LoopLine {
            tool: tool.label(),
            kind: tool.kind,
            frame_pointers: tool.build == Build::FramePointers,
            depth: row.depth,
            threads: row.threads,
            clock: tool.clock,
            median_ns,
            min_ns: row.min_ns.is_finite().then_some(row.min_ns),
            round_ns: row.round_ns.clone(),
            over_bare_ns: median_ns.zip(bare).map(|(own, bare)| own - bare),
            of_bare: median_ns.zip(bare).map(|(own, bare)| own / bare),
            memtap_of_it: own
                .filter(|_| tool.kind == RowKind::Peer)
                .zip(headline.and_then(part))
                .map(|(own, headline)| headline / own),
            calls_made: row.calls_made,
            calls_seen: row.calls_seen,
            calls_stderr: row.calls_stderr,
            frames: row.frames,
            note: row.note.clone(),
            problem: row.problem.clone(),
        }
    };
    rows.iter().map(line).collect()
}

/// Holds every line that a limit is about against it.
pub(crate) fn judge(
    part: &str,
    lines: &[LoopLine],
    limits: &[RatioLimit],
    share: ComparedPart,
) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for limit in limits {
        let subjects = lines.iter().filter(|line| {
            line.tool == limit.subject && line.frame_pointers && line.depth >= limit.from_depth
        });
        for subject in subjects {
            let reference = lines.iter().find(|line| {
                line.tool == limit.reference && line.frame_pointers && line.depth == subject.depth
            });
            judgements.push(judgement(part, subject, reference, limit, share));
        }
    }
    judgements
}

fn judgement(
    part: &str,
    subject: &LoopLine,
    reference: Option<&LoopLine>,
    limit: &RatioLimit,
    share: ComparedPart,
) -> Judgement {
    let of = |line: &LoopLine| match share {
        ComparedPart::Whole => line.median_ns,
        ComparedPart::Addition => line.over_bare_ns,
    };
    let figure = of(subject)
        .zip(reference.and_then(of))
        .map(|(own, reference)| own / reference);
    let miscount = miscount(subject);
    let broken = subject.median_ns.is_some() && subject.problem.is_some();
    let verdict = match LimitVerdict::on(figure, limit.share) {
        _ if miscount != 0 || broken => LimitVerdict::Fail,
        LimitVerdict::Unknown if limit.optional => LimitVerdict::Skip,
        verdict => verdict,
    };
    let (verb, what) = match share {
        ComparedPart::Whole => ("costs", "of"),
        ComparedPart::Addition => ("adds", "of what is added by"),
    };
    let (name, depth) = (limit.subject, subject.depth);
    let beside = match figure {
        Some(figure) => format!(
            "{name} {verb} {figure:.3} {what} {} at depth {depth}",
            limit.reference
        ),
        None => format!(
            "{name} beside {}: there are not both figures at depth {depth}",
            limit.reference
        ),
    };
    let mut sentences = vec![beside, format!("the limit is {}", limit.share)];
    if miscount != 0 {
        sentences.push(format!("its count of calls is off by {miscount:+}"));
    }
    sentences.extend(subject.problem.clone());
    Judgement {
        verdict,
        part: part.to_owned(),
        figure,
        limit: limit.share,
        sentence: sentences.join("; "),
    }
}

/// The median over the rounds of a line's figure as a share of another's in the same round.
fn round_ratio(subject: &LoopLine, reference: &LoopLine) -> Option<f64> {
    let rounds = subject.round_ns.iter().zip(&reference.round_ns);
    median(&mut rounds.map(|(own, other)| own / other).collect::<Vec<_>>())
}

/// The most that a row may cost, as a share of the same row of the build before.
const BEFORE_LIMIT: f64 = 1.03;

/// Holds every row of memtap against the same of the build before.
pub(crate) fn judge_against(part: &str, lines: &[LoopLine]) -> Vec<Judgement> {
    let twin = |line: &LoopLine| {
        let name = format!("{}{BEFORE}", line.tool);
        lines.iter().find(|other| {
            other.tool == name
                && (other.depth, other.threads, other.frame_pointers)
                    == (line.depth, line.threads, line.frame_pointers)
        })
    };
    let judged = |line: &LoopLine| {
        let before = twin(line)?;
        let figure = round_ratio(line, before);
        let miscount = miscount(line);
        let verdict = match LimitVerdict::on(figure, BEFORE_LIMIT) {
            _ if miscount != 0 => LimitVerdict::Fail,
            // Options that the build before does not have.
            LimitVerdict::Unknown if line.problem.is_none() && before.problem.is_some() => LimitVerdict::Skip,
            verdict => verdict,
        };
        let frames = if line.frame_pointers {
            ""
        } else {
            " without frame pointers"
        };
        let beside = figure.map_or_else(
            || "has no figure beside the build before".to_owned(),
            |figure| format!("costs {figure:.3} of the build before"),
        );
        let mut sentences = vec![
            format!("{} {beside} at depth {}{frames}", line.tool, line.depth),
            format!("the limit is {BEFORE_LIMIT}"),
        ];
        if miscount != 0 {
            sentences.push(format!("its count of calls is off by {miscount:+}"));
        }
        sentences.extend([&line.problem, &before.problem].into_iter().flatten().cloned());
        Some(Judgement {
            verdict,
            part: part.to_owned(),
            figure,
            limit: BEFORE_LIMIT,
            sentence: sentences.join("; "),
        })
    };
    lines.iter().filter_map(judged).collect()
}

/// Holds rows in two threads against the same in one.
pub(crate) fn judge_threads(part: &str, lines: &[LoopLine]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for subject in THREADS_SUBJECTS {
        let with = |threads: u32| {
            let fits =
                |line: &&LoopLine| line.tool == *subject && line.frame_pointers && line.threads == threads;
            lines.iter().find(fits)
        };
        let Some((one, two)) = with(1).zip(with(2)) else {
            continue;
        };
        let figure = round_ratio(two, one);
        let miscount = miscount(one) + miscount(two);
        let verdict = match LimitVerdict::on(figure, THREADS_LIMIT) {
            _ if miscount != 0 => LimitVerdict::Fail,
            verdict => verdict,
        };
        let share = figure.map_or_else(
            || "has no figure".to_owned(),
            |figure| format!("costs {figure:.3}"),
        );
        let mut sentences = vec![
            format!("{subject} {share} per call in two threads of what it costs in one"),
            format!("the limit is {THREADS_LIMIT}"),
        ];
        if miscount != 0 {
            sentences.push(format!("its count of calls is off by {miscount:+}"));
        }
        sentences.extend([&one.problem, &two.problem].into_iter().flatten().cloned());
        judgements.push(Judgement {
            verdict,
            part: part.to_owned(),
            figure,
            limit: THREADS_LIMIT,
            sentence: sentences.join("; "),
        });
    }
    judgements
}

/// Calls counted less calls made, of a tool that counts every call.
pub(crate) fn miscount(line: &LoopLine) -> i128 {
    match (line.calls_seen, line.calls_stderr) {
        (Some(seen), None) => i128::from(seen) - i128::from(line.calls_made),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effort::USUAL;
    use crate::results::Clock;
    use crate::results::passes;
    use crate::tools::ToolWay;

    fn tool(name: &'static str, kind: RowKind, build: Build) -> BenchTool {
        BenchTool {
            name,
            kind,
            build,
            clock: Clock::Thread,
            pace: USUAL,
            way: ToolWay::Alone,
            is_before: false,
        }
    }

    fn row(tool: usize, ns: f64) -> LoopRow {
        LoopRow {
            round_ns: vec![ns],
            min_ns: ns,
            calls_made: 80,
            calls_seen: Some(80),
            ..LoopRow::new(tool, 20, 1)
        }
    }

    const LIMIT: RatioLimit = RatioLimit {
        subject: "ours",
        reference: "theirs",
        share: 0.5,
        from_depth: 20,
        optional: false,
    };

    #[test]
    fn shares_and_verdicts() {
        let tools = [
            tool("bare", RowKind::Bare, Build::FramePointers),
            tool("ours", RowKind::Headline, Build::FramePointers),
            tool("theirs", RowKind::Peer, Build::FramePointers),
            tool("bare", RowKind::Bare, Build::NoFramePointers),
            tool("theirs", RowKind::Peer, Build::NoFramePointers),
        ];
        let mut rows = [
            row(0, 100.0),
            row(1, 160.0),
            row(2, 300.0),
            row(3, 10.0),
            row(4, 20.0),
        ];
        let verdict = |rows: &[LoopRow], share, limit: &RatioLimit| {
            let lines = lines(&tools, rows, share);
            judge("loops", &lines, std::slice::from_ref(limit), share)
        };
        let whole = lines(&tools, &rows, ComparedPart::Whole);
        assert_eq!(whole[2].memtap_of_it, Some(160.0 / 300.0));
        assert_eq!((whole[4].of_bare, whole[4].memtap_of_it), (Some(2.0), None));
        assert_eq!(whole[1].memtap_of_it, None);
        assert_eq!(
            lines(&tools, &rows, ComparedPart::Addition)[2].memtap_of_it,
            Some(0.3)
        );
        assert!(!passes(&verdict(&rows, ComparedPart::Whole, &LIMIT)));
        assert!(passes(&verdict(&rows, ComparedPart::Addition, &LIMIT)));

        rows[1].calls_seen = Some(79);
        assert!(!passes(&verdict(&rows, ComparedPart::Addition, &LIMIT)));
        rows[1].calls_seen = Some(80);
        rows[2].round_ns.clear();
        let judged = verdict(&rows, ComparedPart::Addition, &LIMIT);
        assert_eq!(judged[0].verdict, LimitVerdict::Unknown);
        assert!(!passes(&judged));
        let optional = RatioLimit {
            optional: true,
            ..LIMIT
        };
        assert_eq!(
            verdict(&rows, ComparedPart::Addition, &optional)[0].verdict,
            LimitVerdict::Skip
        );
        let deeper = RatioLimit {
            from_depth: 21,
            ..LIMIT
        };
        assert!(verdict(&rows, ComparedPart::Addition, &deeper).is_empty());
    }

    #[test]
    fn another_build_is_held_against_round_by_round() {
        let own = tool("ours", RowKind::Headline, Build::FramePointers);
        let before = BenchTool {
            is_before: true,
            kind: RowKind::Memtap,
            ..tool("ours", RowKind::Headline, Build::FramePointers)
        };
        let tools = [own, before];
        let rounds = |tool, round_ns: &[f64]| LoopRow {
            round_ns: round_ns.to_vec(),
            ..row(tool, 100.0)
        };
        // The machine slows down while they run; the ratios do not.
        let mut rows = [
            rounds(0, &[102.0, 204.0, 460.0]),
            rounds(1, &[100.0, 200.0, 400.0]),
        ];
        let judged = |rows: &[LoopRow]| judge_against("loops", &lines(&tools, rows, ComparedPart::Whole));
        assert_eq!(judged(&rows).len(), 1);
        assert_eq!(judged(&rows)[0].figure, Some(1.02));
        assert!(passes(&judged(&rows)));
        rows[0].calls_seen = Some(79);
        assert!(!passes(&judged(&rows)));
        rows[0].calls_seen = Some(80);
        rows[0].round_ns[0] = 104.0;
        rows[0].round_ns[1] = 208.0;
        assert!(!passes(&judged(&rows)));
        rows[1].round_ns.clear();
        rows[1].problem = Some("it has no such option".to_owned());
        assert_eq!(judged(&rows)[0].verdict, LimitVerdict::Skip);
    }

    #[test]
    fn two_threads_beside_one() {
        let tools = [tool(THREADS_SUBJECTS[0], RowKind::Headline, Build::FramePointers)];
        let threads = |threads, ns| LoopRow {
            threads,
            ..row(0, ns)
        };
        let judged = |two| {
            let rows = [threads(1, 100.0), threads(2, two)];
            judge_threads("threads", &lines(&tools, &rows, ComparedPart::Whole))
        };
        assert!(passes(&judged(104.0)));
        assert!(!passes(&judged(106.0)));
        assert_eq!(judged(104.0)[0].figure, Some(1.04));
    }
}
