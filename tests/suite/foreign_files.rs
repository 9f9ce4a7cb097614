//! Files that were made to harm whoever reads them, by targets and by processes that are none of
//! memtap's business: the recording stands, in bounded memory and time.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use memtap_tests::{
    Context, Fixture, LIMIT, Memtap, MemtapRecording, MemtapSession, Need, PeakMemory, Recipe,
    RunningProgram, children, eventually, run,
};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("foreign_files::fifo_in_place", &[Need::Compiler], fifo_in_place),
    case("foreign_files::sparse_elf", &[Need::Compiler], sparse_elf),
    case(
        "foreign_files::compressed_sections",
        &[Need::Compiler],
        compressed_sections,
    ),
    case("foreign_files::long_names", &[Need::Compiler], long_names),
    case(
        "foreign_files::truncated_while_read",
        &[Need::Compiler],
        truncated_while_read,
    ),
    case("foreign_files::reader_killed", &[Need::Compiler], reader_killed),
    case(
        "foreign_files::reader_has_no_rights",
        &[Need::Compiler],
        reader_has_no_rights,
    ),
    case("foreign_files::owner_only", &[Need::Compiler], owner_only),
    case("foreign_files::many_files", &[Need::Compiler], many_files),
    case(
        "foreign_files::held_mounts",
        &[Need::Compiler, Need::Namespaces],
        held_mounts,
    ),
];

/// Memory that memtap and the process that reads names for it may each have.
const MOST_KIB: u64 = 512 << 10;

/// The same where the whole machine is recorded, whose other programs have stacks too.
const MOST_KIB_OF_ALL: u64 = 1 << 20;

/// Records the whole machine, which may be busy.
const ALL: [&str; 5] = ["-a", "--sample", "65536", "--max-overhead", "off"];

fn mapper(context: &Context) -> Result<Fixture> {
    Recipe::foreign_c("mapper").build(context)
}

fn plugin(context: &Context) -> Result<PathBuf> {
    Ok(Recipe::foreign_c("plugin").shared().build(context)?.path)
}

/// A program that another user runs. It must be able to read what it is given.
fn stranger(context: &Context, words: &[&str]) -> Result<RunningProgram> {
    let mut command = context.unprivileged(mapper(context)?.path);
    command.args(words);
    RunningProgram::start(command)
}

fn has_mapped(program: &mut RunningProgram) -> Result<()> {
    let has_mapped = eventually(LIMIT, || {
        ensure!(program.is_alive()?, "the fixture ended: {}", program.stderr());
        Ok(program.stdout().contains("mapped"))
    })?;
    ensure!(has_mapped, "the fixture maps nothing");
    Ok(())
}

/// A target, started and mapped.
fn target(context: &Context, words: &[&str]) -> Result<RunningProgram> {
    let mut command = mapper(context)?.command();
    command.args(words);
    let mut program = RunningProgram::start(command)?;
    has_mapped(&mut program)?;
    Ok(program)
}

/// A directory that everybody may use.
fn open_directory() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))?;
    Ok(directory)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not a plain path")
}

/// Waits for memtap's end, and fails if it or a child of it took too much memory.
fn recorded(session: MemtapSession<'_>, peak: PeakMemory) -> Result<MemtapRecording> {
    recorded_within(MOST_KIB, session, peak)
}

fn recorded_within(most_kib: u64, session: MemtapSession<'_>, peak: PeakMemory) -> Result<MemtapRecording> {
    let recording = session.finish()?;
    peak.was_below(most_kib)?;
    recording.whole()
}

/// Starts memtap, and a watch over its memory.
fn watched(memtap: Memtap<'_>) -> Result<(MemtapSession<'_>, PeakMemory)> {
    let mut session = memtap.start()?;
    session.wait_until_tracing()?;
    let peak = PeakMemory::watch(session.pid()?);
    Ok((session, peak))
}

/// Lines of messages that have all these words.
fn lines<'a>(recording: &'a MemtapRecording, words: &[&str]) -> Vec<&'a str> {
    let lines = recording.finished.stderr_lines();
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    lines.into_iter().filter(has_all).collect()
}

/// A FIFO, or a link to a device, where a mapped file was, while the process is out of scope and
/// while it is a target.
fn fifo_in_place(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    let quiet = target(context, &["map"])?;
    for how in ["fifo", "/dev/zero", "/dev/tty"] {
        for is_target in [false, true] {
            let path = directory.path().join("a.so");
            let words = ["replace", text(&path)?, how];
            let memtap = Memtap::record(context)?;
            let began = Instant::now();
            let recording = if is_target {
                let program = mapper(context)?;
                let command = [&["timeout", "2", text(&program.path)?], &words[..]].concat();
                let session = memtap.command(command).start()?;
                let peak = PeakMemory::watch(session.pid()?);
                let recording = session.finish()?.ended_with(124)?;
                peak.was_below(MOST_KIB)?;
                recording
            } else {
                let memtap = memtap.process(quiet.pid()).arguments(["-d", "2s"]);
                let (session, peak) = watched(memtap)?;
                let _other = stranger(context, &words)?;
                recorded(session, peak)?
            };
            ensure!(recording.summary()?.number("/totals/alloc/count")? > 20);
            ensure!(
                began.elapsed() < Duration::from_mins(1),
                "memtap took {:?} with {how} in place of a file",
                began.elapsed()
            );
        }
    }
    Ok(())
}

/// A small file that is 6 GiB long.
fn sparse_elf(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    let path = directory.path().join("big.so");
    std::fs::copy(plugin(context)?, &path)?;
    File::options().write(true).open(&path)?.set_len(6 << 30)?;
    let (session, peak) = watched(Memtap::record(context)?.arguments(ALL).arguments(["-d", "4s"]))?;
    let mut other = stranger(context, &["map", text(&path)?])?;
    has_mapped(&mut other)?;
    let recording = recorded_within(MOST_KIB_OF_ALL, session, peak)?;
    let said = lines(&recording, &["big.so", "is left out", "holes"]);
    ensure!(said.len() == 1, "{said:?} of {}", recording.finished.stderr);

    // As a target, it is mapped before memtap comes.
    let running = target(context, &["map", text(&path)?])?;
    let memtap = Memtap::record(context)?.process(running.pid());
    let (session, peak) = watched(memtap.arguments(["-d", "1s"]))?;
    let recording = recorded(session, peak)?;
    let said = lines(&recording, &["big.so", "is left out"]);
    ensure!(said.len() == 1, "{said:?} of {}", recording.finished.stderr);
    ensure!(recording.summary()?.number("/totals/alloc/count")? > 20);
    Ok(())
}

/// A zstd frame (RFC 8878, 3.1.1) of one byte over and over: blocks of 128 KiB in 4 bytes each.
fn zstd_zeros(bytes: u64) -> Vec<u8> {
    const BLOCK: u64 = 128 << 10;
    // The magic number; no flags; a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let blocks = bytes / BLOCK;
    for block in 1..=blocks {
        // The last block, run-length encoded, of this size.
        let header = u32::from(block == blocks) | 1 << 1 | 0x2_0000 << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Replaces `.debug_info` of a library by compressed bytes that say to unpack to `said`.
fn with_compressed_debug_info(library: &Path, to: &Path, packed: &[u8], said: u64) -> Result<()> {
    const ZSTD: u32 = 2;
    const SHF_COMPRESSED: u64 = 1 << 11;
    let section = to.with_extension("section");
    let mut bytes = Vec::new();
    bytes.extend(ZSTD.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(said.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(packed);
    std::fs::write(&section, bytes)?;
    let mut objcopy = Command::new("objcopy");
    objcopy
        .arg("--update-section")
        .arg(format!(".debug_info={}", section.display()))
        .args([library, to]);
    run(objcopy)?.succeeded()?;
    // The flag, which no option of objcopy sets alone.
    let file = std::fs::read(to)?;
    let word = |at: usize| -> Result<u64> {
        let word = file.get(at..at + 8).context("a header ends early")?;
        Ok(u64::from_le_bytes(word.try_into()?))
    };
    let half = |at: usize| Ok::<_, anyhow::Error>(usize::from(file[at]) | usize::from(file[at + 1]) << 8);
    let (headers, count, names) = (usize::try_from(word(40)?)?, half(60)?, half(62)?);
    let names = usize::try_from(word(headers + names * 64 + 24)?)?;
    for at in (0..count).map(|index| headers + index * 64) {
        let name = names + usize::try_from(word(at)? & 0xffff_ffff)?;
        if file[name..].starts_with(b".debug_info\0") {
            let flags = (word(at + 8)? | SHF_COMPRESSED).to_le_bytes();
            File::options()
                .write(true)
                .open(to)?
                .write_all_at(&flags, at as u64 + 8)?;
            return Ok(());
        }
    }
    bail!("the fixture has no debug information")
}

/// Debug information that unpacks to 4 GiB, whatever it says of that. The library's symbols still
/// name its functions.
fn compressed_sections(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    let packed = zstd_zeros(4 << 30);
    for said in [1000, 1 << 20, 4 << 30] {
        let path = directory.path().join(format!("s{said}.so"));
        with_compressed_debug_info(&plugin(context)?, &path, &packed, said)?;
        let running = target(context, &["call", text(&path)?])?;
        let memtap = Memtap::record(context)?.process(running.pid());
        let (session, peak) = watched(memtap.arguments(["-d", "1s"]))?;
        let recording = recorded(session, peak)?;
        let said = lines(
            &recording,
            &[text(&path)?, "debug information is not used", ".debug_info"],
        );
        ensure!(said.len() == 1, "{said:?} of {}", recording.finished.stderr);
        let named = recording
            .folded()?
            .weight_of(|line| line.passes("plugin_call") && line.passes("plugin_leaf"));
        ensure!(named > 0, "no names:\n{}", recording.folded()?.text);
    }
    Ok(())
}

/// Two functions with names of 100 KB, in 4,096 stacks.
fn long_names(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?;
    let source = memtap.directory().join("long.c");
    let mut code = File::create(&source)?;
    writeln!(code, "#include <stdlib.h>\ntypedef void walk(unsigned, int);")?;
    for name in ["one", "two"] {
        let long = name.repeat(100_000 / 3);
        writeln!(code, "walk {name} __asm__(\"{long}\");")?;
    }
    for name in ["one", "two"] {
        writeln!(
            code,
            "__attribute__((noinline, noclone)) void {name}(unsigned path, int depth) {{\n\
             if (depth == 0) {{ void *volatile block = malloc(16); free(block); }}\n\
             else if (path & 1) one(path >> 1, depth - 1); else two(path >> 1, depth - 1);\n\
             __asm__ volatile(\"\"); }}"
        )?;
    }
    writeln!(
        code,
        "int main(void) {{ for (unsigned path = 0; path < 4096; path++) one(path, 12); return 0; }}"
    )?;
    drop(code);
    let program = memtap.directory().join("long");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O1", "-fno-optimize-sibling-calls", "-o"])
        .args([&program, &source]);
    run(compiler)?.succeeded()?;
    let session = memtap.command([&program]).start()?;
    let peak = PeakMemory::watch(session.pid()?);
    let recording = recorded(session, peak)?;
    let folded = recording.folded()?;
    let longest = folded
        .text
        .lines()
        .flat_map(|line| line.split(';'))
        .map(str::len)
        .max();
    ensure!(
        longest.is_some_and(|longest| (4000..=4096).contains(&longest)),
        "the longest name has {longest:?} bytes"
    );
    let lines = folded.text.lines().filter(|line| line.contains("…")).count();
    ensure!(lines == 4096, "{lines} stacks");
    Ok(())
}

/// A library that is cut while its names are read. Whenever that is, the recording stands, and what
/// has no names for it is said.
fn truncated_while_read(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    for delay_us in ["0", "300", "1000", "3000", "10000"] {
        let path = directory.path().join(format!("after-{delay_us}.so"));
        std::fs::copy(plugin(context)?, &path)?;
        // Names take their time.
        let file = File::options().append(true).open(&path)?;
        std::io::copy(
            &mut std::io::Read::take(File::open("/dev/urandom")?, 32 << 20),
            &mut &file,
        )?;
        let mut running = target(context, &["truncate", text(&path)?, delay_us])?;
        let memtap = Memtap::record(context)?.process(running.pid());
        let (session, peak) = watched(memtap.arguments(["-d", "4s"]))?;
        let recording = recorded(session, peak)?;
        ensure!(
            running.stdout().contains("truncated"),
            "nobody has opened the library: {}",
            running.stdout()
        );
        ensure!(running.is_alive()?, "the target has ended");
        let folded = recording.folded()?;
        let named = folded.weight_of(|line| line.passes("plugin_leaf"));
        let nameless = folded.weight_of(|line| line.passes("[after-"));
        ensure!(named + nameless > 0, "no stacks:\n{}", folded.text);
        // What has no name is explained.
        let said = lines(&recording, &["after-"]);
        ensure!(nameless == 0 || !said.is_empty(), "{}", recording.finished.stderr);
    }
    Ok(())
}

/// The process that reads names for memtap.
fn readers(memtap: u32) -> Vec<u32> {
    let is_reader = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|word| word == b"symbolize-worker")
    };
    children(memtap).into_iter().filter(is_reader).collect()
}

/// The process that reads names is killed again and again: names are left out, nothing else is.
fn reader_killed(context: &Context) -> Result<()> {
    let path = plugin(context)?;
    let running = target(context, &["call", text(&path)?])?;
    let mut session = Memtap::record(context)?
        .process(running.pid())
        .arguments(["-d", "1s"])
        .start()?;
    session.wait_until_tracing()?;
    let memtap = session.pid()?;
    let is_over = eventually(LIMIT, || {
        for reader in readers(memtap) {
            // It can be gone by now.
            if let Err(error) = context.signal(reader, "SEGV") {
                memtap_tests::journal::note(&format!("{error:#}"));
            }
        }
        Ok(children(memtap).is_empty() && !Path::new(&format!("/proc/{memtap}/exe")).exists())
    })?;
    ensure!(is_over, "memtap does not end");
    let recording = session.finish()?.whole()?;
    let said = lines(&recording, &["signal 11"]);
    ensure!(!said.is_empty(), "no word of it: {}", recording.finished.stderr);
    ensure!(recording.summary()?.number("/totals/alloc/count")? > 20);
    let nameless = recording
        .folded()?
        .weight_of(|line| line.frames.iter().any(|frame| frame.contains("+0x")));
    ensure!(nameless > 0, "all have names:\n{}", recording.folded()?.text);
    Ok(())
}

/// The process that reads names can do no harm: it has no capabilities, cannot get any, and makes
/// no system calls but a few.
fn reader_has_no_rights(context: &Context) -> Result<()> {
    let path = plugin(context)?;
    let running = target(context, &["call", text(&path)?])?;
    // Interim reports keep the process.
    let mut session = Memtap::bare(context)?
        .arguments(["live", "--interval", "500ms", "-d", "4s"])
        .process(running.pid())
        .without_outputs()
        .start()?;
    session.wait_until_tracing()?;
    let memtap = session.pid()?;
    let mut status = String::new();
    let is_there = eventually(Duration::from_secs(20), || {
        let reader = readers(memtap).into_iter().next();
        status = reader.map_or_else(String::new, |reader| {
            std::fs::read_to_string(format!("/proc/{reader}/status")).unwrap_or_default()
        });
        // Its limits are set within a moment of its start.
        Ok(status.contains("Seccomp:\t2"))
    })?;
    ensure!(
        is_there,
        "there is no such process, or it has its rights: {status}"
    );
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.map(str::trim).unwrap_or_default().to_owned()
    };
    for (name, value) in [
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
    ] {
        ensure!(field(name) == value, "{name} {}", field(name));
    }
    ensure!(field("Uid:").starts_with("65534"), "{status}");
    session.finish()?.ended_with(0)?;
    Ok(())
}

/// Files that only their owner may read have names all the same.
fn owner_only(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("own.so");
    std::fs::copy(plugin(context)?, &path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
    let running = target(context, &["call", text(&path)?])?;
    let memtap = Memtap::record(context)?.process(running.pid());
    let recording = memtap.arguments(["-d", "1s"]).run()?.whole()?;
    let named = recording.folded()?.weight_of(|line| line.passes("plugin_leaf"));
    ensure!(named > 0, "no names:\n{}", recording.folded()?.text);
    ensure!(
        recording.summary()?.json["objects"]
            .to_string()
            .contains("own.so"),
        "the library is not among the objects"
    );
    Ok(())
}

/// Files that one process maps.
const MANY: usize = 6000;

/// A process maps thousands of files: of the whole machine, and with few descriptors.
fn many_files(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    let library = plugin(context)?;
    for number in 0..MANY {
        std::fs::copy(&library, directory.path().join(format!("l{number}")))?;
    }
    let prefix = directory.path().join("l");
    let quiet = target(context, &["map"])?;
    // They are mapped before memtap comes, and while it records.
    for comes_first in [true, false] {
        let words = ["many", text(&prefix)?, &MANY.to_string()];
        let mut other = None;
        if comes_first {
            has_mapped(other.insert(stranger(context, &words)?))?;
        }
        let memtap = Memtap::record(context)?
            .after("ulimit -n 1024")
            .arguments(ALL)
            .arguments(["-d", "5s"]);
        let (session, peak) = watched(memtap)?;
        if !comes_first {
            has_mapped(other.insert(stranger(context, &words)?))?;
        }
        let recording = recorded_within(MOST_KIB_OF_ALL, session, peak)?;
        let said = lines(&recording, &["maps more files than memtap keeps open"]);
        ensure!(said.len() == 1, "{said:?} of {}", recording.finished.stderr);
        let folded = recording.folded()?;
        let named = folded.weight_of(|line| line.is_of("mapper") && line.passes("main"));
        ensure!(named > 0, "others have no names:\n{}", folded.text);
    }
    // Out of scope, they cost nothing.
    let memtap = Memtap::record(context)?
        .after("ulimit -n 256")
        .process(quiet.pid())
        .arguments(["-d", "4s"]);
    let (session, peak) = watched(memtap)?;
    let mut other = stranger(context, &["many", text(&prefix)?, &MANY.to_string()])?;
    has_mapped(&mut other)?;
    let recording = recorded(session, peak)?;
    let said = lines(&recording, &["maps more files"]);
    ensure!(said.is_empty(), "{said:?}");
    ensure!(recording.summary()?.number("/totals/alloc/count")? > 20);
    Ok(())
}

/// A file system that another process has run from can be unmounted while memtap records.
fn held_mounts(context: &Context) -> Result<()> {
    let directory = open_directory()?;
    let quiet = target(context, &["map"])?;
    let program = Recipe::foreign_c("idle")
        .flags(["-static", "-nostdlib", "-fno-stack-protector"])
        .build(context)?;
    for is_named in [false, true] {
        let memtap = Memtap::record(context)?.arguments(["-d", "4s"]);
        let memtap = if is_named {
            memtap.arguments(["--comm", "mapper"])
        } else {
            memtap.process(quiet.pid())
        };
        let mut session = memtap.start()?;
        session.wait_until_tracing()?;
        let mount = directory.path().join("mount");
        std::fs::create_dir_all(&mount)?;
        let mut command = context.privileged("mount");
        command.args(["-t", "tmpfs", "none"]).arg(&mount);
        run(command)?.succeeded()?;
        let inside = mount.join("program");
        let outcome = std::fs::copy(&program.path, &inside)
            .map_err(anyhow::Error::from)
            .and_then(|_| run(Command::new(&inside))?.succeeded());
        // Mappings are looked at some 50 times a second.
        std::thread::sleep(Duration::from_millis(500));
        let mut command = context.privileged("umount");
        command.arg(&mount);
        let unmounted = run(command)?;
        if unmounted.code() != 0 {
            let mut command = context.privileged("umount");
            command.arg("-l").arg(&mount);
            run(command)?.succeeded()?;
        }
        outcome?;
        ensure!(
            unmounted.code() == 0,
            "the file system is held: {}",
            unmounted.stderr
        );
        session.finish()?.whole()?;
    }
    Ok(())
}
