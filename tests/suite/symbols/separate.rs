//! Debug information that is elsewhere, in every place where it may be, and packed in every way.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Fixture, LIMIT, Memtap, Need, RunningProgram, eventually, run};

use super::shipped::{
    CHAIN, PLAIN_CHAIN, ROUND_BYTES, Shipped, by_id, has_chain, is_named, is_nameless, objcopy, object,
};
use crate::case::{Case, case};
use crate::under_load::copy_libraries;

const NEEDS: &[Need] = &[Need::Compiler, Need::Binutils];

/// Only the link leads to the debug information.
const WITHOUT_ID: &[&str] = &["-Wl,--build-id=none"];

pub(crate) const CASES: &[Case] = &[
    case("symbols::by_build_id", NEEDS, by_build_id),
    case("symbols::link_beside", NEEDS, |context| {
        linked(context, "bin/hidden.debug")
    }),
    case("symbols::link_below", NEEDS, |context| {
        linked(context, "bin/.debug/hidden.debug")
    }),
    case("symbols::link_in_debug_dir", NEEDS, link_in_debug_dir),
    case("symbols::global_directory", NEEDS, global_directory),
    case("symbols::targets_root", NEEDS, targets_root),
    case(
        "symbols::small_table",
        &[Need::Compiler, Need::Binutils, Need::Xz],
        small_table,
    ),
    case("symbols::compressed_zlib", NEEDS, |context| {
        compressed(context, "zlib")
    }),
    case("symbols::compressed_zstd", NEEDS, |context| {
        compressed(context, "zstd")
    }),
    case("symbols::hint", NEEDS, hint),
];

fn by_build_id(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let directory = memtap.directory().join("symbols");
    let path = shipped.lay_out_by_id(&directory)?;
    let memtap = memtap.argument("-v").argument("--debug-dir").argument(&directory);
    let recording = shipped.record(memtap)?;
    is_named(&recording)?;
    let object = object(&recording, "bin/hidden")?;
    ensure!(
        object["build_id"] == shipped.build_id()?.as_str()
            && object["debug"] == path.to_string_lossy().as_ref(),
        "the summary names other files: {object}"
    );
    let said = format!("bin/hidden: debug information in {}", path.display());
    ensure!(
        recording.finished.stderr.contains(&said),
        "-v does not say {said:?}"
    );
    Ok(())
}

fn linked(context: &Context, place: &str) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), WITHOUT_ID)?;
    shipped.link()?;
    shipped.lay_out_at(&memtap.directory().join(place))?;
    let recording = shipped.record(memtap)?;
    is_named(&recording)?;
    ensure!(
        object(&recording, "bin/hidden")?["build_id"].is_null(),
        "a build id where there is none"
    );
    Ok(())
}

/// At the program's own path below a debug directory.
fn link_in_debug_dir(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), WITHOUT_ID)?;
    shipped.link()?;
    let directory = memtap.directory().join("symbols");
    let parent = shipped.program.path.parent().context("no directory")?;
    let place = directory.join(parent.strip_prefix("/")?).join("hidden.debug");
    shipped.lay_out_at(&place)?;
    let memtap = memtap.argument("--debug-dir").argument(&directory);
    is_named(&shipped.record(memtap)?)
}

/// The directory of distributions, for memtap in a mount namespace that has it there.
fn global_directory(context: &Context) -> Result<()> {
    if !Path::new("/usr/lib/debug").is_dir() {
        // Nothing is put into the machine's own directories for a test's sake.
        memtap_tests::journal::note("this machine has no /usr/lib/debug to mount over");
        return Ok(());
    }
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let directory = memtap.directory().join("symbols");
    shipped.lay_out_by_id(&directory)?;
    let mount = format!("mount --bind '{}' /usr/lib/debug", directory.display());
    let recording = shipped.record(memtap.after(&mount))?;
    is_named(&recording)?;
    let used = object(&recording, "bin/hidden")?["debug"].clone();
    let expected = by_id(Path::new("/usr/lib/debug"), &shipped.build_id()?);
    ensure!(used == expected.to_string_lossy().as_ref(), "{used} was used");
    Ok(())
}

/// In the root directory of the target, which has gone by the time when names are wanted.
fn targets_root(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let root = memtap.directory().join("root");
    let shipped = Shipped::build(context, &root, &[])?;
    copy_libraries(&shipped.program.path, &root)?;
    shipped.lay_out_by_id(&root.join("usr/lib/debug"))?;
    let mut command = context.privileged("chroot");
    command
        .arg(&root)
        .args(["/bin/hidden", "/go"])
        .env("LD_LIBRARY_PATH", "/lib");
    let mut running = RunningProgram::start(command)?;
    let is_ready = eventually(Duration::from_secs(10), || {
        ensure!(running.is_alive()?, "the fixture ended: {}", running.stderr());
        Ok(running.stdout().contains("waiting"))
    })?;
    ensure!(is_ready, "the fixture does not start");
    let pid = context.behind_sudo(running.pid(), "hidden")?;
    let mut session = memtap.process(pid).start()?;
    session.wait_until_tracing()?;
    std::fs::write(root.join("go"), "")?;
    running.finish(LIMIT)?.succeeded()?;
    let recording = session.finish()?.whole()?;
    is_named(&recording)?;
    let used = object(&recording, "/bin/hidden")?["debug"].clone();
    let expected = by_id(Path::new("/usr/lib/debug"), &shipped.build_id()?);
    ensure!(used == expected.to_string_lossy().as_ref(), "{used} was used");
    Ok(())
}

/// `.gnu_debugdata`: a symbol table of the functions, packed with xz, in a file that is stripped
/// otherwise.
fn small_table(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let small = memtap.directory().join("small");
    let mut strip = Command::new("objcopy");
    strip
        .args(["-S", "--remove-section", ".comment"])
        .args([
            "--keep-symbol=main",
            "--keep-symbol=hidden_outer",
            "--keep-symbol=hidden_leaf",
        ])
        .arg(&shipped.debug)
        .arg(&small);
    run(strip)?.succeeded()?;
    let mut pack = Command::new("xz");
    pack.arg(&small);
    run(pack)?.succeeded()?;
    let section = format!(".gnu_debugdata={}.xz", small.display());
    objcopy([
        "--add-section".as_ref(),
        section.as_ref(),
        shipped.program.path.as_os_str(),
    ])?;
    let recording = shipped.record(memtap)?;
    has_chain(&recording, &PLAIN_CHAIN, ROUND_BYTES)
}

/// Compressed sections, in the program itself and in its debug information.
fn compressed(context: &Context, way: &str) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let option = format!("--compress-debug-sections={way}");
    objcopy([option.as_ref(), shipped.debug.as_os_str()])?;
    let mut shown = Command::new("readelf");
    shown.arg("-tW").arg(&shipped.debug);
    let shown = run(shown)?.succeeded()?.stdout;
    ensure!(
        shown.contains(&way.to_uppercase()),
        "objcopy did not compress with {way}:\n{shown}"
    );
    let directory = memtap.directory().join("symbols");
    shipped.lay_out_by_id(&directory)?;
    let whole = memtap.directory().join("whole/hidden");
    std::fs::create_dir_all(whole.parent().context("no directory")?)?;
    objcopy([option.as_ref(), shipped.whole.as_os_str(), whole.as_ref()])?;
    let memtap = memtap.argument("--debug-dir").argument(&directory);
    // The files are in its directory.
    let first = shipped.record(memtap)?;
    is_named(&first)?;

    let whole = Fixture {
        path: whole,
        comm: "hidden".to_owned(),
    };
    let recording = Memtap::record(context)?.fixture(&whole).run()?.whole()?;
    has_chain(&recording, &CHAIN, ROUND_BYTES)
}

/// One hint is printed when nothing is found, unless messages are off.
fn hint(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let shipped = Shipped::build(context, memtap.directory(), &[])?;
    let recording = shipped.record(memtap)?;
    is_nameless(&recording)?;
    let hints: Vec<_> = recording
        .finished
        .stderr_lines()
        .into_iter()
        .filter(|line| line.contains("no name"))
        .map(str::to_owned)
        .collect();
    ensure!(
        hints.len() == 1
            && ["frames of hidden", "--debug-dir", "--debuginfod"]
                .iter()
                .all(|word| hints[0].contains(word)),
        "there is no such hint: {hints:?}"
    );
    let quiet = shipped.record(Memtap::record(context)?.argument("-q"))?;
    ensure!(
        quiet.finished.stderr_lines().is_empty(),
        "something was said: {}",
        quiet.finished.stderr
    );
    Ok(())
}
