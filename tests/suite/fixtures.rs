//! The fixtures themselves: two accounts of them agree, before memtap is measured by either.

use anyhow::{Result, ensure};
use memtap_tests::{Context, Counts, Fixture, Need, Reported, difference, shim_counts};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "fixtures::tell_what_the_shim_counts",
        &[Need::Compiler],
        tell_what_the_shim_counts,
    ),
    case(
        "fixtures::are_the_same_every_time",
        &[Need::Compiler, Need::Rustc],
        are_the_same_every_time,
    ),
];

fn tell_what_the_shim_counts(context: &Context) -> Result<()> {
    for name in ["functions", "indirect", "fork", "deep", "threads"] {
        let fixture = Fixture::c(context, name)?;
        let (mut counted, finished) = shim_counts(context, fixture.command())?;
        let mut reported = Reported::parse(&finished.stdout)?.functions();
        // Behind the shim memalign has an address of its own, and the fixture tells so.
        if let Some(count) = reported.remove("memalign") {
            *reported.entry("aligned_alloc".to_owned()).or_default() += count;
        }
        if name == "threads" {
            // What pthread_create allocates for each of four threads is not reported.
            let calls = counted["calloc"].calls - reported["calloc"].calls;
            ensure!(calls == 4, "{calls} calls of calloc by pthread_create");
            counted.insert("calloc".to_owned(), reported["calloc"]);
        }
        if let Some(difference) = difference(&reported, &counted) {
            anyhow::bail!("{name} tells (expected) what the shim (found) does not count:\n{difference}");
        }
    }
    Ok(())
}

fn are_the_same_every_time(context: &Context) -> Result<()> {
    for fixture in [
        Fixture::c(context, "threads")?,
        Fixture::rust(context, "words")?,
        Fixture::rust(context, "empty")?,
    ] {
        let mut first: Option<Counts> = None;
        for _ in 0..10 {
            let (counts, _) = shim_counts(context, fixture.command())?;
            let first = first.get_or_insert_with(|| counts.clone());
            if let Some(difference) = difference(first, &counts) {
                anyhow::bail!("two runs of {} differ:\n{difference}", fixture.comm);
            }
        }
    }
    Ok(())
}
