//! The comparisons as a table, and a line for each kind of difference.

use std::fmt::Write as _;

use super::compare::Comparison;

/// A workload and what came of it.
pub(crate) struct WorkloadRow {
    pub(crate) name: &'static str,
    pub(crate) outcome: WorkloadOutcome,
}

/// The outcome of a workload.
pub(crate) enum WorkloadOutcome {
    Compared(Comparison),
    /// It is not there to be run.
    Skipped(String),
    /// It, or one of the tracers, did not run to its end.
    Failed(String),
}

/// Kinds of differences that are shown for each workload.
const GROUPS_MAX: usize = 12;

/// The table, then the differences.
pub(crate) fn text(rows: &[WorkloadRow]) -> String {
    let mut text = String::from(
        "| target | hits | distinct stacks | identical hits | percent | complete | note |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut differences = String::new();
    let (mut identical, mut compared) = (0, 0);
    for row in rows {
        let line = match &row.outcome {
            WorkloadOutcome::Compared(comparison) => {
                identical += comparison.identical_hits;
                compared += comparison.compared_hits();
                differences += &differences_of(row.name, comparison);
                figures(row.name, comparison)
            }
            WorkloadOutcome::Skipped(reason) => format!("| {} | | | | | | **skipped**: {reason} |", row.name),
            WorkloadOutcome::Failed(reason) => format!("| {} | | | | | | **failed**: {reason} |", row.name),
        };
        text.push_str(&line);
        text.push('\n');
    }
    format!("{text}\n{identical} of {compared} hits have the same stack, frame by frame.\n{differences}")
}

fn figures(name: &str, comparison: &Comparison) -> String {
    let Comparison {
        scope,
        gdb_stacks,
        other_hits,
        memtap_hits,
        identical_hits,
        ..
    } = comparison;
    let mut notes = Vec::new();
    if !scope.whole_run {
        notes.push(format!(
            "the first {} of {memtap_hits}",
            comparison.gdb_hits + other_hits
        ));
    }
    if scope.main_thread_only {
        notes.push(format!("main thread; {other_hits} hits in others"));
    }
    if scope.program.is_some() {
        notes.push("frames up to main".to_owned());
    }
    format!(
        "| {name} | {} | {gdb_stacks} | {identical_hits} | {} | {} | {} |",
        comparison.compared_hits(),
        percent(comparison.percent()),
        percent(comparison.complete_percent()),
        notes.join("; ")
    )
}

/// Rounded down, so that 100 means all.
fn percent(value: f64) -> String {
    format!("{:.3}", (value * 1000.0).floor() / 1000.0)
}

fn differences_of(name: &str, comparison: &Comparison) -> String {
    let mut text = String::new();
    for group in comparison.groups.iter().take(GROUPS_MAX) {
        let (hits, stacks) = (group.hits, group.stacks);
        // Writing to a string cannot fail.
        write!(
            text,
            "\n{name}: {hits} hits, {stacks} stacks: {}\n    {}",
            group.cause, group.example
        )
        .unwrap_or_default();
    }
    let rest = comparison.groups.get(GROUPS_MAX..).unwrap_or_default();
    if !rest.is_empty() {
        let hits: u64 = rest.iter().map(|group| group.hits).sum();
        write!(text, "\n{name}: {hits} hits in {} more kinds", rest.len()).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(percent(100.0), "100.000");
        assert_eq!(percent(99.999_9), "99.999");
    }
}
