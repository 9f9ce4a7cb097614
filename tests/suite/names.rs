//! Names of C++ functions that have none of their own, or none that other files could call.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, ensure};
use memtap_tests::{Context, Memtap, Need, Recipe};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("symbols::names_of_functions", &[Need::CppCompiler], |context| {
        named(
            context,
            &["-O0"],
            "auto main::{lambda(auto:1)#4}::operator()<unsigned long>(unsigned long) const",
        )
    }),
    case(
        "symbols::names_of_inlined_functions",
        &[Need::CppCompiler],
        |context| named(context, &["-O2"], INLINED_GENERIC),
    ),
    case("symbols::names_in_dwarf_4", &[Need::CppCompiler], |context| {
        named(context, &["-O2", "-gdwarf-4"], INLINED_GENERIC)
    }),
    case(
        "symbols::names_in_packed_sections",
        &[Need::CppCompiler],
        |context| named(context, &["-O2", "-gz"], INLINED_GENERIC),
    ),
    case("symbols::names_across_units", &[Need::CppCompiler], |context| {
        named(context, &["-O2", "-flto"], INLINED_GENERIC)
    }),
    case("symbols::names_of_folded_functions", &[Need::CppCompiler], folded),
];

/// Debug information does not tell which parameters of a lambda were `auto`.
const INLINED_GENERIC: &str = "main::{lambda#4}::operator()<unsigned long>";

const SHIP: &str = "shop::Order::ship(int) const";
const EACH: &str = "void shop::each<main::{lambda(unsigned long)#5}>(main::{lambda(unsigned long)#5})";

/// Every function has the same name, inlined or not, but the generic lambda.
fn named(context: &Context, flags: &[&str], generic: &str) -> Result<()> {
    let outer = format!("{SHIP}::{{lambda()#1}}::operator()() const");
    let inner = format!("{outer}::{{lambda(unsigned long)#1}}::operator()(unsigned long) const");
    let expected: BTreeMap<u64, Vec<&str>> = BTreeMap::from([
        (1001, vec!["main::{lambda()#1}::operator()() const"]),
        (
            1002,
            vec!["main::{lambda(unsigned long)#2}::operator()(unsigned long) const"],
        ),
        (
            1003,
            vec!["main::{lambda(unsigned long)#3}::operator()(unsigned long) const"],
        ),
        (1004, vec![generic]),
        (1005, vec!["main::Local::push(unsigned long)"]),
        (
            1006,
            vec![
                EACH,
                "main::{lambda(unsigned long)#5}::operator()(unsigned long) const",
            ],
        ),
        (
            1007,
            vec!["(anonymous namespace)::Cache::insert(unsigned long) const"],
        ),
        (
            1008,
            vec!["(anonymous namespace)::Table<unsigned long>::put(unsigned long)"],
        ),
        (1009, vec![SHIP, &outer]),
        (1010, vec![SHIP, &outer, &inner]),
        (1011, vec!["operator \"\" _bytes(unsigned long long)"]),
        (
            1012,
            vec!["(anonymous namespace)::operator \"\" _own(unsigned long long)"],
        ),
        (1013, vec!["helper(char const*, unsigned long)"]),
        (1014, vec!["plain_c"]),
    ]);
    let found = below_main(context, flags)?;
    let found: BTreeMap<u64, Vec<&str>> = found
        .iter()
        .map(|(frames, bytes)| (*bytes, frames.iter().map(String::as_str).collect()))
        .collect();
    ensure!(
        found == expected,
        "{flags:?}: {found:#?}\ninstead of {expected:#?}"
    );
    Ok(())
}

/// A compiler or a linker that folds functions of equal code leaves one of their symbols. No frame
/// has a short name.
fn folded(context: &Context) -> Result<()> {
    let by_compiler = ["-O2", "-fno-inline", "-fipa-icf"];
    let by_linker = [
        "-O1",
        "-fno-inline",
        "-ffunction-sections",
        "-fuse-ld=gold",
        "-Wl,--icf=all",
    ];
    let has_gold = Command::new("ld.gold").arg("--version").output().is_ok();
    if !has_gold {
        memtap_tests::journal::note("no linker folds functions: this machine has no ld.gold");
    }
    for flags in [Some(&by_compiler[..]), has_gold.then_some(&by_linker[..])] {
        let Some(flags) = flags else { continue };
        let found = below_main(context, flags)?;
        let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
        ensure!(
            bytes == (1001..=1014).sum::<u64>() && found.len() < 14,
            "{flags:?}: {found:#?}"
        );
        for name in found.iter().flat_map(|(frames, _)| frames) {
            let is_whole = name == "plain_c" || name.contains('(') && name != "operator()";
            ensure!(is_whole, "{flags:?}: {name:?} is a short name: {found:#?}");
        }
    }
    Ok(())
}

/// Stacks of the fixture from what `main` calls on, with their bytes.
fn below_main(context: &Context, flags: &[&str]) -> Result<Vec<(Vec<String>, u64)>> {
    let fixture = Recipe::plain_cpp("naming")
        .flags(["-g"])
        .flags(flags)
        .build(context)?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    let lines = recording.folded()?.lines.iter();
    let below = lines.filter_map(|line| {
        let main = line.frames.iter().position(|frame| frame == "main")?;
        Some((line.frames[main + 1..].to_vec(), line.weight))
    });
    Ok(below.collect())
}
