//! Two counts of the same calls, set against each other.

use std::path::PathBuf;

use super::difference::{self, DifferenceGroup};
use super::gdb::GdbStacks;
use super::stacks::Stacks;

/// The hits that are compared, and their frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct ComparisonScope {
    /// gdb let the program run to its end, so the counts must be equal. Else what gdb saw must be
    /// part of what memtap saw: a wrong stack in the part that gdb saw goes unnoticed if the right
    /// one comes again later.
    pub(crate) whole_run: bool,
    /// Other threads take turns as they like: the main thread's stacks must be part of what memtap
    /// saw.
    pub(crate) main_thread_only: bool,
    /// Compare frames only up to the first outside of this file.
    pub(crate) program: Option<PathBuf>,
}

/// The result of a comparison.
pub(crate) struct Comparison {
    pub(crate) scope: ComparisonScope,
    /// Hits that gdb saw, of those compared.
    pub(crate) gdb_hits: u64,
    pub(crate) gdb_stacks: usize,
    /// Hits that gdb saw in other threads, which are not compared.
    pub(crate) other_hits: u64,
    /// All hits that memtap saw.
    pub(crate) memtap_hits: u64,
    /// Those of them whose walk reached the outermost frame.
    pub(crate) complete_hits: u64,
    /// Hits with the same stack on both sides.
    pub(crate) identical_hits: u64,
    pub(crate) groups: Vec<DifferenceGroup>,
}

impl Comparison {
    pub(crate) fn new(ours: &Stacks, truth: &GdbStacks, scope: ComparisonScope) -> Self {
        let (mut memtap, mut gdb) = (ours.clone(), truth.main_thread.clone());
        let mut other = truth.other_threads.clone();
        if let Some(program) = &scope.program {
            let is_wanted = |address| truth.modules.is_in(address, program);
            memtap = memtap.cut(is_wanted);
            gdb = gdb.cut(is_wanted);
        }
        if !scope.main_thread_only {
            for (stack, seen) in std::mem::take(&mut other).iter() {
                gdb.add(stack.clone(), seen.clone());
            }
        }
        let identical_hits = gdb
            .iter()
            .filter_map(|(stack, seen)| Some(memtap.get(stack)?.hits.min(seen.hits)))
            .sum();
        let complete = ours.iter().filter(|(_, seen)| seen.end == "complete");
        let mut comparison = Self {
            gdb_hits: gdb.hits(),
            gdb_stacks: gdb.len(),
            other_hits: other.hits(),
            memtap_hits: ours.hits(),
            complete_hits: complete.map(|(_, seen)| seen.hits).sum(),
            identical_hits,
            groups: Vec::new(),
            scope,
        };
        let is_partial = !comparison.counts_must_be_equal();
        comparison.groups = difference::groups(&memtap, &gdb, &other, &truth.modules, is_partial);
        comparison
    }

    /// Returns whether a call that only memtap saw is a difference too.
    fn counts_must_be_equal(&self) -> bool {
        self.scope.whole_run && !self.scope.main_thread_only
    }

    /// The hits that could have been identical.
    pub(crate) fn compared_hits(&self) -> u64 {
        if self.counts_must_be_equal() {
            self.gdb_hits.max(self.memtap_hits)
        } else {
            self.gdb_hits
        }
    }

    /// The share of hits with the same stack; nothing where there was nothing to compare.
    pub(crate) fn percent(&self) -> f64 {
        percent(self.identical_hits, self.compared_hits())
    }

    pub(crate) fn complete_percent(&self) -> f64 {
        percent(self.complete_hits, self.memtap_hits)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::gdb::GdbEnd;
    use super::super::modules;
    use super::super::stacks::parse;
    use super::*;

    pub(crate) fn stacks(lines: &[&str]) -> Stacks {
        let mut stacks = Stacks::default();
        for line in lines {
            let (stack, seen) = parse(line).expect("a line");
            stacks.add(stack, seen);
        }
        stacks
    }

    fn truth(main: &[&str], other: &[&str]) -> GdbStacks {
        GdbStacks {
            main_thread: stacks(main),
            other_threads: stacks(other),
            modules: modules::tests::two(),
            end: GdbEnd::Exited,
        }
    }

    fn scope(whole_run: bool, main_thread_only: bool) -> ComparisonScope {
        ComparisonScope {
            whole_run,
            main_thread_only,
            program: None,
        }
    }

    #[expect(clippy::float_cmp, reason = "the shares are exact")]
    fn assert_share(comparison: &Comparison, percent: f64) {
        assert_eq!(comparison.percent(), percent);
        let differing: u64 = comparison.groups.iter().map(|group| group.hits).sum();
        assert_eq!(
            differing,
            comparison.compared_hits() - comparison.identical_hits,
            "each difference is in a group"
        );
    }

    #[test]
    fn equal_counts() {
        let lines = ["3 malloc complete 1300 1400", "1 malloc truncated 1300"];
        let comparison = Comparison::new(&stacks(&lines), &truth(&lines, &[]), scope(true, false));
        assert_share(&comparison, 100.0);
        assert_eq!((comparison.complete_hits, comparison.memtap_hits), (3, 4));
    }

    #[test]
    fn hits_of_one_side_alone() {
        let (one, two) = (["2 malloc complete 1300"], ["8 malloc complete 1300"]);
        let more = Comparison::new(&stacks(&two), &truth(&one, &[]), scope(true, false));
        assert_share(&more, 25.0);
        let fewer = Comparison::new(&stacks(&one), &truth(&two, &[]), scope(true, false));
        assert_share(&fewer, 25.0);
        let part = Comparison::new(&stacks(&two), &truth(&one, &[]), scope(false, false));
        assert_share(&part, 100.0);
        let nothing = Comparison::new(&stacks(&[]), &truth(&[], &[]), scope(true, false));
        assert_share(&nothing, 0.0);
    }

    #[test]
    fn other_threads() {
        let ours = stacks(&["2 malloc complete 1300", "7 malloc complete 1500"]);
        let truth = truth(&["2 malloc complete 1300"], &["6 malloc complete 1500"]);
        assert_share(&Comparison::new(&ours, &truth, scope(true, true)), 100.0);
        let all = Comparison::new(&ours, &truth, scope(true, false));
        assert_eq!((all.identical_hits, all.compared_hits()), (8, 9));
    }

    #[test]
    fn frames_of_the_program_alone() {
        let ours = stacks(&["2 malloc frame_pointer 1300 8100"]);
        let truth = truth(&["2 malloc complete 1300 8100 1400"], &[]);
        let scope = ComparisonScope {
            program: Some(PathBuf::from("/bin/prog")),
            ..scope(true, false)
        };
        assert_share(&Comparison::new(&ours, &truth, scope), 100.0);
    }
}
