//! A test: a name, what it needs, and a function.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use memtap_tests::{Context, Need, journal};

/// Tests that take this long are named at the end, with their times.
const SLOW: Duration = Duration::from_secs(10);

static SLOW_CASES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// A test.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&Context) -> Result<()>,
}

/// Beginnings of the names of tests that run beside each other: each traces programs of its own,
/// and looks at nothing that belongs to the machine. The others look at times, at all probes of
/// the machine, at its mounts or at its users, send signals by name, or run strace, whose program
/// may die where others put breakpoints into its libraries.
const BESIDE_OTHERS: &[&str] = &[
    "allocators::",
    "arguments::",
    "cgroups::",
    "documents::",
    "errors::",
    "escapes::",
    "fixtures::",
    "foreign_files::",
    "html::",
    "live::",
    "live_report::",
    "lives::",
    "outputs::",
    "processes::",
    "python::",
    "real::",
    "sampling::",
    "saved_profiles::",
    "seed::",
    "speedscope::",
    "stacks::",
    "sums::",
    "symbols::",
];

/// The end of the names of those among them that trace the whole machine.
const OF_THE_MACHINE: &str = "::whole_machine";

/// A file system is to be nobody's, and recordings of other tests hold its files for a moment.
const OF_A_MOUNT: &str = "foreign_files::held_mounts";

/// Returns true if a test may run beside others of that kind.
pub(crate) fn runs_beside(name: &str) -> bool {
    let is_alone = name.ends_with(OF_THE_MACHINE) || name == OF_A_MOUNT;
    BESIDE_OTHERS.iter().any(|start| name.starts_with(start)) && !is_alone
}

/// A test that needs what `needs` lists, beside memtap and root.
pub(crate) const fn case(
    name: &'static str,
    needs: &'static [Need],
    run: fn(&Context) -> Result<()>,
) -> Case {
    Case { name, needs, run }
}

/// All tests, for the runner; without a context they can be listed alone.
pub(crate) fn trials(context: Option<&Context>) -> Vec<Trial> {
    let must_run = std::env::var_os("MEMTAP_TEST_ALL").is_some_and(|value| value == "1");
    crate::CASES
        .iter()
        .flat_map(|cases| cases.iter())
        .map(|case| {
            let missing = case.needs.iter().find_map(|need| need.missing());
            let context = context.cloned();
            let case = *case;
            let trial = Trial::test(case.name, move || {
                if let Some(reason) = missing {
                    return Err(Failed::from(format!("this machine has {reason}")));
                }
                context.map_or(Ok(()), |context| attempt(case, &context))
            });
            let Some(reason) = missing.filter(|_| !must_run) else {
                return trial;
            };
            eprintln!("suite: NOT RUN: {}: this machine has {reason}", case.name);
            trial.with_ignored_flag(true)
        })
        .collect()
}

/// Names the tests that took long, the longest first.
pub(crate) fn report_slow() {
    let Ok(mut slow) = SLOW_CASES.lock() else { return };
    slow.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    for (name, took) in slow.iter() {
        eprintln!("suite: {name} took {} s", took.as_secs());
    }
}

fn attempt(case: Case, context: &Context) -> Result<(), Failed> {
    journal::clear();
    let begun = Instant::now();
    let outcome = (case.run)(context);
    let took = begun.elapsed();
    if took >= SLOW
        && let Ok(mut slow) = SLOW_CASES.lock()
    {
        slow.push((case.name, took));
    }
    outcome.map_err(|error| Failed::from(format!("{error:#}\n\n{}", journal::read())))
}
