//! Allocators that come in other ways.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Count, Counts, Fixture, LIMIT, Memtap, Recipe, Reported, RunningProgram, library_path, run,
};

use super::{How, JEMALLOC, MIMALLOC, beyond, difference, functions_of};

/// jemalloc's mallocx, rallocx, xallocx, dallocx and sdallocx.
pub(crate) fn extended(context: &Context) -> Result<()> {
    for how in [How::Linked, How::Static] {
        let [(_, recording), nothing] =
            JEMALLOC.record(context, Recipe::allocator_c("extended"), how, false)?;
        let reported = recording.reported()?;
        let process = recording.summary()?.process(reported.images[0].pid, "extended")?;
        let found = beyond(&process.functions, &functions_of(&nothing)?);
        if let Some(difference) = difference(&reported.functions(), &found) {
            anyhow::bail!("not what the fixture tells:\n{difference}");
        }
        let [(_, recording), (_, nothing)] =
            JEMALLOC.record(context, Recipe::allocator_c("extended"), how, true)?;
        let figure = |path: &str| -> Result<u64> {
            let path = format!("/totals/{path}");
            Ok(recording
                .summary()?
                .number(&path)?
                .saturating_sub(nothing.summary()?.number(&path)?))
        };
        for (path, expected) in [
            ("live/count", 3 + 2),
            ("live/bytes", 3 * 64 + 2 * 100),
            ("functions/free/calls", 27 + 10 + 10),
            ("functions/free/unmatched", 0),
        ] {
            let found = figure(path)?;
            ensure!(found == expected, "{path} is {found} instead of {expected}");
        }
        let xallocx = &recording.summary()?.json["totals"]["functions"]["xallocx"];
        ensure!(
            xallocx["failed"] == 12 && xallocx["bytes"] == 12 * 210,
            "a block that stays too small has failed: {xallocx}"
        );
    }
    Ok(())
}

/// jemalloc as Rust's crates have it: each of its functions with a prefix, linked into the program.
pub(crate) fn prefixed(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("libprefixed.a");
    let names = [
        "malloc",
        "calloc",
        "realloc",
        "free",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "valloc",
        "mallocx",
        "rallocx",
        "xallocx",
        "dallocx",
        "sdallocx",
    ];
    let mut objcopy = Command::new("objcopy");
    for name in names {
        objcopy.arg(format!("--redefine-sym={name}=_rjem_{name}"));
    }
    objcopy
        .arg(library_path("libjemalloc.a").context("no libjemalloc.a")?)
        .arg(&archive);
    run(objcopy)?.succeeded()?;
    // The program says `malloc` and means `_rjem_malloc`.
    let defines = names.map(|name| format!("-D{name}=_rjem_{name}"));
    let fixture = Recipe::allocator_c("prefixed")
        .flags(defines)
        .flags([archive.as_os_str()])
        .flags(["-lstdc++", "-lm"])
        .build(context)?;
    let recording = Memtap::record(context)?.fixture(&fixture).run()?.whole()?;
    let reported = recording.reported()?;
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    let found = recording.summary()?.functions()?;
    for (function, expected) in reported.functions() {
        let count = found.get(&function).copied().unwrap_or_default();
        // The libc's and libstdc++'s own calls are there too.
        ensure!(
            count.calls >= expected.calls && count.bytes >= expected.bytes,
            "{function}: {count:?} instead of {expected:?}"
        );
    }
    Ok(())
}

/// Two threads load another allocator each, at once: every call is seen, from the first.
pub(crate) fn two(context: &Context) -> Result<()> {
    let fixture = Recipe::allocator_c("two").build(context)?;
    let path = fixture.path.display().to_string();
    let libraries = [JEMALLOC.path()?, MIMALLOC.path()?].map(|path| path.display().to_string());
    for live in [false, true] {
        let recording = Memtap::record(context)?
            .arguments(live.then_some("--live"))
            .command(["env", STATIC_TLS, &path, &libraries[0], "", &libraries[1], "mi_"])
            .run()?
            .whole()?;
        let reported = recording.reported()?;
        recording
            .folded()?
            .compare(&reported, |chain| chain.count.bytes)?;
        for library in ["libjemalloc", "libmimalloc"] {
            let probes = recording.summary()?.json["probes"].to_string();
            ensure!(
                probes.contains(library),
                "the probes in {library} are not listed: {probes}"
            );
        }
        ensure!(
            !recording.finished.stderr.contains("was met when"),
            "calls were missed: {}",
            recording.finished.stderr
        );
    }
    Ok(())
}

/// The same in a process that runs already, with its children to be.
pub(crate) fn two_later(context: &Context) -> Result<()> {
    let fixture = Recipe::allocator_c("two").build(context)?;
    let libraries = [JEMALLOC.path()?, MIMALLOC.path()?];
    for live in [false, true] {
        let mut command = fixture.command();
        let (name, value) = STATIC_TLS.split_once('=').context("no value")?;
        command
            .env(name, value)
            .arg(&libraries[0])
            .arg("")
            .arg(&libraries[1])
            .args(["mi_", "wait"]);
        let target = RunningProgram::start(command)?;
        let mut session = Memtap::record(context)?
            .arguments(["--sample", "1", "--max-overhead", "off", "--follow"])
            .arguments(live.then_some("--live"))
            .process(target.pid())
            .start()?;
        session.wait_until_tracing()?;
        context.signal(target.pid(), "USR1")?;
        let finished = target.finish(LIMIT)?.succeeded()?;
        let recording = session.finish()?.whole()?;
        let reported = Reported::parse(&finished.stdout)?;
        recording
            .folded()?
            .compare(&reported, |chain| chain.count.bytes)?;
        ensure!(
            !recording.finished.stderr.contains("was met when"),
            "calls were missed: {}",
            recording.finished.stderr
        );
    }
    Ok(())
}

/// Room for the variables of threads that jemalloc wants to have at fixed places, which few are
/// left of for libraries that come later.
const STATIC_TLS: &str = "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536";

/// A shell's shell starts a program that jemalloc is linked into.
pub(crate) fn grandchild(context: &Context) -> Result<()> {
    let fixture = JEMALLOC.build(context, Recipe::c("functions"), How::Static)?;
    let inner = format!("sh -c '{}; true'; true", fixture.path.display());
    let recording = Memtap::record(context)?
        .command(["sh", "-c", &inner])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;
    Ok(())
}

/// A library that stands in front of the libc's functions and calls them is no allocator: each call
/// is one.
pub(crate) fn forwarding(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "functions")?;
    let shim = Fixture::library(context, "shim")?;
    let recording = Memtap::record(context)?
        .command([
            "env".to_owned(),
            format!("LD_PRELOAD={}", shim.path.display()),
            fixture.path.display().to_string(),
        ])
        .run()?
        .whole()?;
    let reported = recording.reported()?;
    let process = recording
        .summary()?
        .process(reported.images[0].pid, "functions")?;
    let calls = |counts: &Counts| counts.values().copied().sum::<Count>();
    let (expected, found) = (calls(&reported.functions()), calls(&process.functions));
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}
