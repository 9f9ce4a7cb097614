//! Debug information of another build, or damaged: it is skipped, and never used.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, MemtapRecording, Need};

use super::shipped::{Shipped, is_named, is_nameless};
use crate::case::{Case, case};

const NEEDS: &[Need] = &[Need::Compiler, Need::Binutils];

pub(crate) const CASES: &[Case] = &[
    case("symbols::other_build", NEEDS, other_build),
    case("symbols::other_checksum", NEEDS, other_checksum),
    case("symbols::damaged", NEEDS, damaged),
    case("symbols::next_place", NEEDS, next_place),
];

/// Another build's debug information, in which the same addresses have other names.
fn other(context: &Context, directory: &Path) -> Result<Shipped> {
    let flags = [
        "-Dhidden_outer=other_outer",
        "-Dhidden_leaf=other_leaf",
        "-DSIZE=1",
    ];
    Shipped::build(context, &directory.join("other"), &flags)
}

fn said(recording: &MemtapRecording, words: &[&str]) -> Result<()> {
    let lines = recording.finished.stderr_lines();
    ensure!(
        lines
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "no line has all of {words:?}"
    );
    Ok(())
}

fn other_build(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let other = other(context, memtap.directory())?;
    let directory = memtap.directory().join("symbols");
    let path = shipped.lay_out_by_id(&directory)?;
    std::fs::copy(&other.debug, &path)?;
    let memtap = memtap.argument("-v").argument("--debug-dir").argument(&directory);
    let recording = shipped.record(memtap)?;
    is_nameless(&recording)?;
    said(&recording, &["is not used", "build id is", &other.build_id()?])
}

fn other_checksum(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.argument("-v");
    let shipped = Shipped::build(context, memtap.directory(), &["-Wl,--build-id=none"])?;
    shipped.link()?;
    let place = memtap.directory().join("bin/hidden.debug");
    shipped.lay_out_at(&place)?;
    OpenOptions::new().append(true).open(&place)?.write_all(b"x")?;
    let recording = shipped.record(memtap)?;
    is_nameless(&recording)?;
    said(&recording, &["is not used", "its CRC is"])
}

/// Cut short, no ELF file at all, nothing in it; each where the build id leads to.
fn damaged(context: &Context) -> Result<()> {
    for (what, reason) in [
        ("half", "damaged"),
        ("text", "not a 64-bit ELF"),
        ("empty", "not a 64-bit ELF"),
        ("directory", "hidden"),
        ("program", "no debug information"),
    ] {
        let memtap = Memtap::record(context)?;
        let shipped = Shipped::build(context, memtap.directory(), &[])?;
        let directory = memtap.directory().join("symbols");
        let path = shipped.lay_out_by_id(&directory)?;
        let whole = std::fs::read(&path)?;
        match what {
            "half" => std::fs::write(&path, &whole[..whole.len() / 2])?,
            "text" => std::fs::write(&path, "no ELF file")?,
            "empty" => std::fs::write(&path, "")?,
            "directory" => {
                std::fs::remove_file(&path)?;
                std::fs::create_dir(&path)?;
            }
            _ => {
                std::fs::copy(&shipped.program.path, &path)?;
            }
        }
        let memtap = memtap.argument("-v").argument("--debug-dir").argument(&directory);
        let recording = shipped.record(memtap).with_context(|| what.to_owned())?;
        is_nameless(&recording).with_context(|| what.to_owned())?;
        said(&recording, &[reason]).with_context(|| what.to_owned())?;
        memtap_tests::journal::clear();
    }
    Ok(())
}

/// A later debug file is used when the first one does not fit.
fn next_place(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let other = other(context, memtap.directory())?;
    shipped.link()?;
    let directory = memtap.directory().join("symbols");
    let path = shipped.lay_out_by_id(&directory)?;
    std::fs::copy(&other.debug, &path)?;
    let beside = memtap.directory().join("bin/hidden.debug");
    std::fs::write(&beside, "no ELF file")?;
    shipped.lay_out_at(&memtap.directory().join("bin/.debug/hidden.debug"))?;
    let memtap = memtap.argument("--debug-dir").argument(&directory);
    is_named(&shipped.record(memtap)?)
}
