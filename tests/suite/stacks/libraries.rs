//! Programs with libraries of their own, linked and loaded.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use memtap_tests::{Context, Memtap, Need, Recipe};

use super::elf;
use super::walked::Walked;
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "stacks::linkage_table_lazy",
        &[Need::Compiler, Need::Binutils],
        |context| linkage_table(context, "lazy"),
    ),
    case(
        "stacks::linkage_table_now",
        &[Need::Compiler, Need::Binutils],
        |context| linkage_table(context, "now"),
    ),
    case(
        "stacks::inside_lazy_binding",
        &[Need::Compiler],
        inside_lazy_binding,
    ),
    case("stacks::dlclosed", &[Need::Compiler], |context| {
        gone(context, false)
    }),
    case("stacks::dlclosed_and_deleted", &[Need::Compiler], |context| {
        gone(context, true)
    }),
];

/// Calls between a program and its library, both ways, bound when they are made or before.
fn linkage_table(context: &Context, binding: &str) -> Result<()> {
    let binding = format!("-Wl,-z,{binding}");
    let library = Recipe::plain_c("visitor")
        .shared()
        .flags([&binding])
        .build(context)?;
    let fixture = Recipe::plain_c("visited")
        .flags([&binding])
        .with_library(&library)
        .build(context)?;
    for file in [&library, &fixture] {
        let is_bound_at_start = elf::shown(&file.path, "-d")?.contains("NOW");
        ensure!(
            is_bound_at_start == binding.ends_with("now"),
            "{} is not linked as {binding} asks",
            file.path.display()
        );
    }
    let walked = Walked::record(context, &fixture)?;
    walked.holds_nothing_but(&walked.recording.reported()?)?;
    walked.ends_are("complete")
}

/// A function that the dynamic linker calls while it looks for another one, inside that one's first
/// call. The linker's own frame counts from rbx, which the walker does not follow: the stack has
/// what is inside of it, and says so.
fn inside_lazy_binding(context: &Context) -> Result<()> {
    let lazy = ["-Wl,-z,lazy"];
    let library = Recipe::plain_c("resolver").shared().flags(lazy).build(context)?;
    let fixture = Recipe::plain_c("resolved")
        .flags(lazy)
        .with_library(&library)
        .build(context)?;
    let walked = Walked::record(context, &fixture)?;
    let folded = walked.recording.folded()?;
    let of_choice = folded.weight_of(|line| line.passes("choose") && line.passes("make_choice"));
    ensure!(
        of_choice == 911,
        "{of_choice} bytes pass the resolver, not 911:\n{}",
        folded.text
    );
    walked.ends_are("unsupported")
}

/// A library that is loaded while memtap records, and let go, or even deleted, before it asks for
/// names.
fn gone(context: &Context, is_deleted: bool) -> Result<()> {
    let library = Recipe::plain_c("late").shared().build(context)?;
    let loader = Recipe::plain_c("loader").flags(["-ldl"]).build(context)?;
    let memtap = Memtap::record(context)?.argument("-vv");
    let own_library = memtap.directory().join("liblate.so");
    let go = memtap.directory().join("go");
    std::fs::copy(&library.path, &own_library)?;
    let mut command: Vec<&OsStr> = vec![loader.path.as_ref(), own_library.as_ref(), go.as_ref()];
    if is_deleted {
        command.push("remove".as_ref());
    }
    let mut session = Walked::start(memtap.command(command))?;
    session.wait_until_said(&["liblate.so", "rows of unwind table"])?;
    // That was said just before the kernel side was given the table.
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(&go, "")?;
    let walked = Walked::end(session)?;
    ensure!(
        own_library.exists() != is_deleted,
        "the library was to be deleted: {is_deleted}"
    );
    // The rest is the dynamic linker's, and the library's first call, which may have come before
    // its table.
    let rest = walked.holds(&walked.recording.reported()?)?;
    ensure!(
        !rest
            .iter()
            .any(|line| line.passes("late_work") || line.passes("late_leaf")),
        "these stacks are of no chain: {rest:#?}"
    );
    Ok(())
}
