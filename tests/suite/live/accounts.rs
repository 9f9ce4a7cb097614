//! The accounts themselves: fixtures, shim and heaptrack agree, before memtap is measured by them.

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, HeapFigures, Need, Recipe, shim_images};

use super::compare::{command, shim_agrees, words};
use super::fixtures::{FIXTURES, executed, inherited_executed};
use super::languages;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("live::shim_agrees", &[Need::Compiler], fixtures_agree),
    case(
        "live::shim_agrees_with_itself",
        &[Need::CppCompiler, Need::Compiler, Need::Rustc],
        same_every_time,
    ),
];

fn fixtures_agree(context: &Context) -> Result<()> {
    for (name, arguments, code) in FIXTURES {
        let fixture = Recipe::live_c(name).build(context)?;
        shim_agrees(context, &words(&fixture, arguments), *code)
            .with_context(|| format!("{name} {}", arguments.join(" ")))?;
    }
    shim_agrees(context, &executed(context)?, 3).context("executed")?;
    shim_agrees(context, &inherited_executed(context)?, 3).context("inherited executed")?;
    Ok(())
}

/// A program without figures of its own has at least the same figures in each run, so that two runs
/// can be compared.
fn same_every_time(context: &Context) -> Result<()> {
    for words in [languages::exceptions(context)?, languages::csv(context)?] {
        let mut first: Option<HeapFigures> = None;
        for _ in 0..5 {
            let (images, finished) = shim_images(context, command(&words)?)?;
            finished.succeeded()?;
            ensure!(images.len() == 1, "{} images", images.len());
            let figures = images[0].figures.clone();
            let first = first.get_or_insert_with(|| figures.clone());
            if let Some(difference) = HeapFigures::difference(first, &figures) {
                anyhow::bail!("two runs of {} differ:\n{difference}", words[0].display());
            }
        }
    }
    Ok(())
}
