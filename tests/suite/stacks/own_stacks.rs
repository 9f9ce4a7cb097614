//! Stacks that programs make themselves.

use std::ffi::OsStr;

use anyhow::Result;
use memtap_tests::{Context, Memtap, Need, Recipe};

use super::walked::Walked;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("stacks::coroutines", &[Need::Compiler], coroutines),
    case("stacks::call_on_lower_stack", &[Need::Compiler], |context| {
        called_on(context, &[])
    }),
    case("stacks::call_on_higher_stack", &[Need::Compiler], |context| {
        called_on(context, &["high"])
    }),
];

/// The coroutine's own frames, from where it begins.
fn coroutines(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("coroutines").build(context)?;
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}

/// A function that is called on another stack has its caller's frames above its own.
fn called_on(context: &Context, arguments: &[&str]) -> Result<()> {
    let fixture = Recipe::plain_c("switched").build(context)?;
    let arguments = arguments.iter().map(OsStr::new);
    let command: Vec<&OsStr> = std::iter::once(fixture.path.as_os_str())
        .chain(arguments)
        .collect();
    let walked = Walked::run(Memtap::record(context)?.command(command))?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}
