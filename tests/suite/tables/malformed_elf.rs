//! The vDSO, which is no file; files of processes that are no targets; files whose unwind
//! information makes no sense.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, Memtap, Need, Recipe, run};

use crate::case::{Case, case};
use crate::stacks::walked::Walked;

pub(crate) const CASES: &[Case] = &[
    case("tables::vdso", &[Need::Compiler], vdso),
    case(
        "tables::other_process_maps",
        &[Need::Compiler, Need::StaticLibc],
        other_process_maps,
    ),
    case("tables::malformed", &[Need::Compiler], malformed),
];

/// Signals interrupt the vDSO's own code.
fn vdso(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_c("clock").build(context)?;
    let walked = Walked::record(context, &fixture)?;
    let reported = walked.recording.reported()?;
    walked.holds_nothing_but(&reported)?;
    let hits = reported.functions()["malloc"].calls;
    ensure!(hits >= 300, "the handler was called {hits} times");
    let through = walked
        .recording
        .folded()?
        .weight_of(|line| line.passes("vdso") && line.passes("main") && !line.is_truncated);
    ensure!(
        through > 0,
        "no stack passes the vDSO:\n{}",
        walked.recording.folded()?.text
    );
    let ends = walked.ends()?;
    let others = ends
        .keys()
        .find(|end| !["complete", "signal"].contains(&end.as_str()));
    ensure!(others.is_none(), "stacks end as {ends:?}");
    Ok(())
}

/// Programs start that are none of memtap's business, with an allocator that it has not met.
fn other_process_maps(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.argument("-v");
    let go = memtap.directory().join("go");
    let path = go.to_str().context("not a plain path")?;
    let fixture = Recipe::plain_c("waiter")
        .named("waiter-static")
        .flags(["-static"])
        .build(context)?;
    let memtap = memtap.environment("BURST_GO", path).fixture(&fixture);
    let mut session = Walked::start(memtap)?;
    session.wait_until_tracing()?;
    let other = Fixture::c(context, "functions")?;
    for _ in 0..5 {
        run(other.command())?.succeeded()?;
    }
    // Mappings are looked at some 50 times a second.
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::fs::write(&go, "")?;
    let walked = Walked::end(session)?;
    let recording = &walked.recording;
    let said = &recording.finished.stderr;
    ensure!(
        !said.contains("was met when"),
        "memtap meets others' files: {said}"
    );
    ensure!(
        !said.contains(&format!("{}:", other.path.display())),
        "memtap makes tables of others' files: {said}"
    );
    let reported = recording.reported()?;
    walked.holds(&reported)?;
    let processes = recording.summary()?.processes()?;
    ensure!(
        processes.len() == 1 && processes[0].comm == fixture.comm,
        "others are in the summary: {processes:?}"
    );
    Ok(())
}

/// A way of damaging a section.
type Damage = fn(&mut [u8]);

/// The first is what a lost block of a disk leaves; the others lie about lengths and pointers.
const DAMAGES: [(&str, Damage); 5] = [
    ("ones in the middle", |bytes| {
        let quarter = bytes.len() / 4;
        bytes[quarter..3 * quarter].fill(0xff);
    }),
    ("ones", |bytes| bytes.fill(0xff)),
    ("zeros", |bytes| bytes.fill(0)),
    ("a first entry that is longer than the section", |bytes| {
        bytes[..4].copy_from_slice(&0x7fff_fff0u32.to_le_bytes());
    }),
    ("every third byte changed", |bytes| {
        bytes.iter_mut().step_by(3).for_each(|byte| *byte ^= 0xa5);
    }),
];

/// Whatever a file says of its frames, its calls are counted, and it is said that its table is not
/// as it should be, or what there is of it.
fn malformed(context: &Context) -> Result<()> {
    let whole = Recipe::plain_c("chains").build(context)?;
    for (what, damage) in DAMAGES {
        for section in [".eh_frame", ".eh_frame_hdr"] {
            let what = format!("{what} in {section}");
            let memtap = Memtap::record(context)?.argument("-v");
            let path = memtap.directory().join("chains");
            std::fs::copy(&whole.path, &path)?;
            edit(&path, section, damage)?;
            let recording = memtap.command([&path]).run()?.whole().context(what.clone())?;
            recording
                .has_functions(&recording.reported()?.functions())
                .context(what.clone())?;
            let said = &recording.finished.stderr;
            let path = path.to_str().context("not a plain path")?;
            let is_named = said.lines().any(|line| {
                line.contains(path)
                    && (line.contains("no unwind table: ") || line.contains("rows of unwind table"))
            });
            ensure!(is_named, "{what}: nothing is said of the table: {said}");
        }
    }
    Ok(())
}

/// Changes the bytes of a section of an ELF file of 64 bits (System V ABI, "Sections").
fn edit(path: &Path, name: &str, damage: Damage) -> Result<()> {
    let mut file = std::fs::read(path)?;
    let bytes = section(&file, name).with_context(|| format!("{} has no {name}", path.display()))?;
    damage(file.get_mut(bytes).context("the section is not in the file")?);
    std::fs::write(path, file)?;
    Ok(())
}

/// Returns where a section is.
fn section(file: &[u8], wanted: &str) -> Option<std::ops::Range<usize>> {
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(file.get(at..at + len)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    // e_shoff, e_shentsize, e_shnum, e_shstrndx.
    let (headers, size, count, names) = (number(40, 8)?, number(58, 2)?, number(60, 2)?, number(62, 2)?);
    // sh_offset and sh_size.
    let range = |header: usize| Some((number(header + 24, 8)?, number(header + 32, 8)?));
    let (names, _) = range(headers + names * size)?;
    (0..count).map(|at| headers + at * size).find_map(|header| {
        let name = names + number(header, 4)?;
        let is_it = file.get(name..)?.starts_with(format!("{wanted}\0").as_bytes());
        let (offset, len) = range(header)?;
        is_it.then_some(offset..offset + len)
    })
}
