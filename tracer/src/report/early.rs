//! A hint where calls came too soon for the unwind tables of their code.

use super::merge::Completeness;
use super::units;
use crate::profile::Profile;
use crate::profile::session::TableUsage;

/// The share of calls with truncated stacks, in percent, from which on the hint is given.
const CUT_PERCENT: u64 = 1;

/// Returns a hint on stacks that are truncated since their code was new; nothing where there are
/// few.
#[must_use]
pub(crate) fn hint(profile: &Profile, tables: &TableUsage) -> Option<String> {
    if tables.awaited + tables.unfinished == 0 {
        return None;
    }
    let (mut all, mut cut) = (0u64, 0u64);
    for stack in &profile.stacks {
        all = all.saturating_add(stack.values.calls);
        if Completeness::of(stack) == Completeness::Truncated {
            cut = cut.saturating_add(stack.values.calls);
        }
    }
    (cut > 0 && cut >= all / 100 * CUT_PERCENT).then(|| {
        format!(
            "the stacks of {} end early, most of them in code so new that it had no unwind table yet; with --stop-on-dlopen \
             a process waits for these milliseconds",
            units::counted(cut.into(), "call")
        )
    })
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::{Function, StackEnd};

    use super::*;
    use crate::report::sample::SampleProfile;

    #[test]
    fn calls_that_came_too_soon_are_told_where_they_are_many() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "cc1");
        let frame = sample.symbol("xmalloc");
        sample.heap(process, Function::Malloc, &[frame], 10_000, 10_000);
        let soon = TableUsage {
            awaited: 3,
            ..TableUsage::default()
        };
        assert_eq!(hint(&sample.profile, &soon), None, "all are whole");
        let end = Some(StackEnd::Truncated);
        sample.stack(process, Function::Malloc, &[frame], end).calls = 99;
        assert_eq!(hint(&sample.profile, &soon), None, "few are not");
        sample.stack(process, Function::Malloc, &[frame], end).calls = 1000;
        let said = hint(&sample.profile, &soon).expect("many are not");
        assert!(said.starts_with("the stacks of 1,099 calls end early"), "{said}");
        assert_eq!(
            hint(&sample.profile, &TableUsage::default()),
            None,
            "none was awaited"
        );
    }
}
