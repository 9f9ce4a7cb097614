//! Debug information from a server: only when asked for, kept for the next time, and no harm if it
//! fails.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, MemtapRecording, Need};

use super::server::{DebuginfodServer, ServerAnswer};
use super::shipped::{Shipped, is_named, is_nameless, object};
use crate::case::{Case, case};

const NEEDS: &[Need] = &[Need::Compiler, Need::Binutils];

pub(crate) const CASES: &[Case] = &[
    case("symbols::fetched", NEEDS, fetched),
    case("symbols::not_fetched_unasked", NEEDS, unasked),
    case("symbols::fetched_by_environment", NEEDS, by_environment),
    case("symbols::server_has_none", NEEDS, has_none),
    case("symbols::server_silent", NEEDS, silent),
    case("symbols::server_damaged", NEEDS, damaged),
    case("symbols::server_gone", NEEDS, gone),
];

/// The program and memtap, with a cache of the test's own.
fn begin(context: &Context) -> Result<(Memtap<'_>, Shipped)> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    Ok((memtap, shipped))
}

fn with_cache<'a>(memtap: Memtap<'a>, cache: &Path) -> Memtap<'a> {
    memtap.environment("DEBUGINFOD_CACHE_PATH", &cache.to_string_lossy())
}

/// Returns what was asked for of the fixture: other files of the process may lack debug information
/// too.
fn of_fixture(server: &DebuginfodServer, shipped: &Shipped) -> Result<usize> {
    let path = format!("/buildid/{}/debuginfo", shipped.build_id()?);
    Ok(server.requests().iter().filter(|asked| **asked == path).count())
}

fn lines_with(recording: &MemtapRecording, word: &str) -> Vec<String> {
    let lines = recording.finished.stderr_lines().into_iter();
    lines
        .filter(|line| line.contains(word))
        .map(str::to_owned)
        .collect()
}

fn fetched(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let cache = tempfile::tempdir()?;
    let server = DebuginfodServer::start(
        &shipped.build_id()?,
        ServerAnswer::File(std::fs::read(&shipped.debug)?),
    )?;
    let option = format!("--debuginfod={}", server.url);
    let recording = shipped.record(with_cache(memtap, cache.path()).argument(&option))?;
    is_named(&recording)?;
    ensure!(of_fixture(&server, &shipped)? == 1, "{:?}", server.requests());
    let said = lines_with(&recording, &format!("build id {}", shipped.build_id()?));
    ensure!(
        said.len() == 1 && said[0].contains(&server.url) && said[0].contains("hidden"),
        "what is fetched is not said: {said:?}"
    );
    let kept = cache.path().join(shipped.build_id()?).join("debuginfo");
    ensure!(
        std::fs::read(&kept)? == std::fs::read(&shipped.debug)?,
        "the cache has something else"
    );
    let used = object(&recording, "bin/hidden")?["debug"].clone();
    ensure!(used == kept.to_string_lossy().as_ref(), "{used} was used");

    // The next time, nobody is asked; what is damaged in the cache is fetched anew.
    for (is_damaged, requests) in [(false, 1), (true, 2)] {
        if is_damaged {
            std::fs::write(&kept, "no ELF file")?;
        }
        let memtap = with_cache(Memtap::record(context)?, cache.path()).argument(&option);
        is_named(&shipped.record(memtap)?)?;
        ensure!(
            of_fixture(&server, &shipped)? == requests,
            "{:?}",
            server.requests()
        );
    }
    Ok(())
}

fn unasked(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let server = DebuginfodServer::start(
        &shipped.build_id()?,
        ServerAnswer::File(std::fs::read(&shipped.debug)?),
    )?;
    let cache = tempfile::tempdir()?;
    // The program is in its directory.
    let first = shipped.record(with_cache(memtap, cache.path()))?;
    is_nameless(&first)?;
    let memtap = with_cache(Memtap::record(context)?, cache.path())
        .environment("DEBUGINFOD_URLS", &server.url)
        .argument("--no-debuginfod");
    is_nameless(&shipped.record(memtap)?)?;
    ensure!(server.requests().is_empty(), "{:?}", server.requests());
    Ok(())
}

fn by_environment(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let cache = tempfile::tempdir()?;
    let nothing = DebuginfodServer::start(&shipped.build_id()?, ServerAnswer::NotFound)?;
    let server = DebuginfodServer::start(
        &shipped.build_id()?,
        ServerAnswer::File(std::fs::read(&shipped.debug)?),
    )?;
    let urls = format!("{} {}", nothing.url, server.url);
    let memtap = with_cache(memtap, cache.path())
        .environment("DEBUGINFOD_URLS", &urls)
        .argument("-q");
    let recording = shipped.record(memtap)?;
    is_named(&recording)?;
    ensure!(
        of_fixture(&nothing, &shipped)? == 1 && of_fixture(&server, &shipped)? == 1,
        "the servers were not asked in order"
    );
    ensure!(
        recording.finished.stderr_lines().is_empty(),
        "-q said: {}",
        recording.finished.stderr
    );
    Ok(())
}

/// That there is nothing is remembered for a while too.
fn has_none(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let cache = tempfile::tempdir()?;
    let server = DebuginfodServer::start(&shipped.build_id()?, ServerAnswer::NotFound)?;
    let option = format!("--debuginfod={}", server.url);
    let recording = shipped.record(with_cache(memtap, cache.path()).argument(&option))?;
    is_nameless(&recording)?;
    let hints = lines_with(&recording, "no name");
    ensure!(
        hints.len() == 1 && !hints[0].contains("--debuginfod"),
        "servers were asked already: {hints:?}"
    );
    ensure!(
        lines_with(&recording, "warn").is_empty(),
        "a server without a file is no failure: {}",
        recording.finished.stderr
    );
    let memtap = with_cache(Memtap::record(context)?, cache.path()).argument(&option);
    is_nameless(&shipped.record(memtap)?)?;
    ensure!(of_fixture(&server, &shipped)? == 1, "{:?}", server.requests());
    Ok(())
}

/// Fails unless the recording is whole but for its names, with one warning that holds `word`.
fn is_warned(recording: &MemtapRecording, server: &DebuginfodServer, word: &str) -> Result<()> {
    is_nameless(recording)?;
    let warnings = lines_with(recording, "warn");
    ensure!(
        warnings.len() == 1 && warnings[0].contains(&server.url) && warnings[0].contains(word),
        "not one warning with {word:?}: {warnings:?}"
    );
    Ok(())
}

fn silent(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let cache = tempfile::tempdir()?;
    let server = DebuginfodServer::start(&shipped.build_id()?, ServerAnswer::Silence)?;
    let memtap = with_cache(memtap, cache.path())
        .argument(format!("--debuginfod={}", server.url))
        .environment("DEBUGINFOD_TIMEOUT", "1");
    let begun = Instant::now();
    let recording = shipped.record(memtap)?;
    ensure!(
        begun.elapsed() < Duration::from_secs(25),
        "it waited for the server"
    );
    is_warned(&recording, &server, "timeout")?;
    ensure!(
        of_fixture(&server, &shipped)? == 1,
        "a silent server was asked again"
    );
    Ok(())
}

fn damaged(context: &Context) -> Result<()> {
    let (_memtap, shipped) = begin(context)?;
    let directory = tempfile::tempdir()?;
    let other = Shipped::build(context, directory.path(), &["-DSIZE=1"])?;
    let whole = std::fs::read(&shipped.debug)?;
    for (answer, word) in [
        (ServerAnswer::File(b"no ELF file".to_vec()), "not a 64-bit ELF"),
        (ServerAnswer::File(std::fs::read(&other.debug)?), "build id"),
        (ServerAnswer::File(whole[..whole.len() / 2].to_vec()), "damaged"),
        (ServerAnswer::Half(whole), ""),
        (ServerAnswer::Failure, "500"),
    ] {
        let cache = tempfile::tempdir()?;
        let server = DebuginfodServer::start(&shipped.build_id()?, answer)?;
        let memtap = with_cache(Memtap::record(context)?, cache.path())
            .argument(format!("--debuginfod={}", server.url));
        is_warned(&shipped.record(memtap)?, &server, word).with_context(|| word.to_owned())?;
        let entries = std::fs::read_dir(cache.path().join(shipped.build_id()?));
        let left = entries.map_or(0, Iterator::count);
        ensure!(left == 0, "{left} files are left in the cache");
        memtap_tests::journal::clear();
    }
    Ok(())
}

fn gone(context: &Context) -> Result<()> {
    let (memtap, shipped) = begin(context)?;
    let cache = tempfile::tempdir()?;
    // A port that nobody listens on: it was somebody's a moment ago.
    let url = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        format!("http://{}", listener.local_addr()?)
    };
    let memtap = with_cache(memtap, cache.path()).argument(format!("--debuginfod={url}"));
    let recording = shipped.record(memtap)?;
    is_nameless(&recording)?;
    let warnings = lines_with(&recording, "warn");
    ensure!(
        warnings.len() == 1 && warnings[0].contains(&url),
        "not one warning: {warnings:?}"
    );
    Ok(())
}
