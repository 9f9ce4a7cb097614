//! A test: a name, what it needs, and a function.

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use memtap_tests::{Context, Need, journal};

/// A test.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&Context) -> Result<()>,
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

fn attempt(case: Case, context: &Context) -> Result<(), Failed> {
    journal::clear();
    (case.run)(context).map_err(|error| Failed::from(format!("{error:#}\n\n{}", journal::read())))
}
