//! Programs without a dynamic linker, and with another C library than glibc.

use anyhow::{Result, ensure};
use memtap_tests::{Context, Need, Recipe, Reported, run};

use super::walked::{Walked, came_before_main};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("stacks::static", &[Need::Compiler, Need::StaticLibc], |context| {
        without_linker(context, "-static")
    }),
    case(
        "stacks::static_pie",
        &[Need::Compiler, Need::StaticLibc],
        |context| without_linker(context, "-static-pie"),
    ),
    case("stacks::musl", &[Need::Compiler, Need::Musl], |context| {
        musl(context, &[])
    }),
    case("stacks::musl_static", &[Need::Compiler, Need::Musl], |context| {
        musl(context, &["-static"])
    }),
];

fn without_linker(context: &Context, flag: &str) -> Result<()> {
    for name in ["chains", "signals"] {
        let fixture = Recipe::plain_c(name).flags([flag]).build(context)?;
        let walked = Walked::record(context, &fixture)?;
        let rest = walked.holds(&walked.recording.reported()?)?;
        // The rest is what the C library does in place of the dynamic linker.
        came_before_main(&rest)?;
        if name == "chains" {
            walked.ends_are("complete")?;
        }
    }
    Ok(())
}

/// musl has no unwind information for its own functions: stacks go up to `main`, and no further for
/// sure.
fn musl(context: &Context, flags: &[&str]) -> Result<()> {
    for name in ["chains", "signals"] {
        let fixture = Recipe::plain_c(name)
            .compiler("musl-gcc")
            .flags(flags)
            .build(context)?;
        let reported_alone = Reported::parse(&run(fixture.command())?.succeeded()?.stdout)?;
        let walked = Walked::record(context, &fixture)?;
        let reported = walked.recording.reported()?;
        ensure!(
            reported.functions() == reported_alone.functions(),
            "the program did otherwise than alone"
        );
        walked.holds_nothing_but_up_to_main(&reported)?;
    }
    Ok(())
}
