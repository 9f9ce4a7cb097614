//! The first line: how much is live, how it came to be so, and how far that can be trusted.

use std::io::{self, Write};

use tracer_ebpf::Loss;

use super::LiveOptions;
use crate::profile::{Marks, Profile, Session};
use crate::report::sums::AgedSums;
use crate::report::table::{TableOptions, head};
use crate::report::{growth, units};

/// Writes it.
pub(super) fn write(
    profile: &Profile,
    session: &Session,
    total: &AgedSums,
    options: &TableOptions<'_>,
    live: &LiveOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut facts = vec![head::processes(profile), units::duration(session.duration)];
    facts.extend(live_facts(profile, session, total, live));
    facts.extend(head::losses(session));
    head::write_facts(&facts, options, out)
}

fn live_facts(profile: &Profile, session: &Session, total: &AgedSums, live: &LiveOptions) -> Vec<String> {
    let mut facts = Vec::new();
    let lost = [Loss::LiveMapFull, Loss::HeapMapFull, Loss::StackMapFull];
    let least = if lost.iter().any(|loss| session.losses.get(*loss) > 0) {
        "at least "
    } else {
        ""
    };
    let held = profile.held.unwrap_or_default();
    let blocks = units::counted(total.live, "block");
    let traced = session.settings.traced;
    let bytes = units::bytes(total.live_bytes);
    let bytes = head::about(traced, &bytes, total.live_bytes, total.live_bytes_variance);
    facts.push(format!("{least}{bytes} live in {blocks}"));
    facts.extend(head::estimated(session));
    if let Some(age) = live.older_than {
        facts.push(format!(
            "{} of it at least {} old",
            units::bytes(total.old_bytes),
            units::duration(age)
        ));
    }
    let peak = u128::from(held.peak_bytes);
    let peak = head::about(traced, &units::bytes(peak), peak, held.variances.peak_bytes);
    facts.push(format!("peak {least}{peak}"));
    match &profile.marks {
        Some(marks) => {
            facts.push(format!(
                "{} since half-way ({})",
                units::signed_bytes(growth::growth_bytes(total)),
                units::duration(marks.at[Marks::HALF])
            ));
            if total.live_bytes > 0 {
                let share = units::percent(total.kept_bytes, total.live_bytes);
                facts.push(format!("{share} of it older than that"));
            }
        }
        None => facts.push("too short to tell growth".to_owned()),
    }
    if held.unmatched > 0 {
        let frees = units::counted(held.unmatched.into(), "free");
        facts.push(format!("{frees} of blocks from before"));
    }
    if held.missed > 0 {
        facts.push(format!("{} not seen", units::counted(held.missed.into(), "free")));
    }
    facts
}
