//! Signal handlers that allocate.

use anyhow::{Result, ensure};
use memtap_tests::{Context, Need, Recipe};

use super::walked::Walked;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("stacks::signal_handlers", &[Need::Compiler], handlers),
    case(
        "stacks::signals_at_every_instruction",
        &[Need::Compiler],
        every_instruction,
    ),
];

/// The handler's frames, and beyond the trampoline those that were interrupted.
fn handlers(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("signals").build(context)?;
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    // Whole; for sure where the stack lies in one piece.
    let ends = walked.ends()?;
    let others = ends
        .keys()
        .find(|end| !["complete", "signal"].contains(&end.as_str()));
    ensure!(
        others.is_none() && ends.get("signal").is_none_or(|stacks| *stacks <= 1),
        "stacks end as {ends:?}"
    );
    Ok(())
}

/// Rules must be right where nothing is called, too: that is where a signal may come.
fn every_instruction(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("stepped").build(context)?;
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}
