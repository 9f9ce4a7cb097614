//! rustc as rustup ships it has jemalloc in its executable, and nothing can be preloaded in front
//! of that. The second opinion is the kernel's own: events of uprobes at the same functions, with
//! their arguments, as text from tracefs.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Count, Counts, Memtap, in_tracefs, run};

/// The functions that ask for memory, and the arguments that say how much: two are multiplied.
const FUNCTIONS: [(&str, &[usize]); 5] = [
    ("malloc", &[0]),
    ("calloc", &[0, 1]),
    ("realloc", &[1]),
    ("posix_memalign", &[2]),
    ("aligned_alloc", &[1]),
];

/// The group of the events, and the name of their own buffer.
const GROUP: &str = "memtap_second_opinion";

/// Kilobytes of each CPU's buffer: an event takes some 50 bytes.
const BUFFER_KB: u32 = 128 << 10;

/// Events of functions of a file, in a buffer of their own. Dropping it takes them off.
struct TracefsEvents<'a> {
    context: &'a Context,
    names: Vec<&'static str>,
}

impl<'a> TracefsEvents<'a> {
    /// Begins to write them down.
    fn start(context: &'a Context, file: &Path, functions: &BTreeMap<&'static str, u64>) -> Result<Self> {
        let events = Self {
            context,
            names: functions.keys().copied().collect(),
        };
        let definitions: Vec<String> = functions
            .iter()
            .map(|(name, offset)| {
                let path = file.display();
                format!("p:{GROUP}/{name} {path}:{offset:#x} a=%di:u64 b=%si:u64 c=%dx:u64")
            })
            .collect();
        let script = "mkdir instances/$1; echo $2 > instances/$1/buffer_size_kb; echo \"$3\" >> uprobe_events; \
                      echo 1 > instances/$1/events/$1/enable";
        in_tracefs(
            context,
            script,
            &[GROUP, &BUFFER_KB.to_string(), &definitions.join("\n")],
        )?;
        Ok(events)
    }

    /// Returns what was written down, by function.
    fn counts(&self) -> Result<Counts> {
        let script = "echo 0 > instances/$1/events/$1/enable; cat instances/$1/per_cpu/cpu*/stats";
        let stats = in_tracefs(self.context, script, &[GROUP])?;
        let lost = stats
            .lines()
            .filter(|line| line.starts_with("overrun:") || line.starts_with("dropped events:"));
        for line in lost {
            ensure!(line.ends_with(": 0"), "the buffer was too small: {stats}");
        }
        let text = in_tracefs(self.context, "cat instances/$1/trace", &[GROUP])?;
        let mut counts = Counts::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, bytes) = parse(line).with_context(|| format!("not an event: {line}"))?;
            *counts.entry(name.to_owned()).or_default() += Count { calls: 1, bytes };
        }
        Ok(counts)
    }
}

impl Drop for TracefsEvents<'_> {
    fn drop(&mut self) {
        let script = "echo 0 > instances/$1/events/$1/enable; rmdir instances/$1; group=$1; shift; \
                      for name; do echo \"-:$group/$name\" >> uprobe_events; done";
        if let Err(error) = in_tracefs(self.context, script, &[&[GROUP], self.names.as_slice()].concat()) {
            eprintln!("suite: events of {GROUP} stay behind: {error:#}");
        }
    }
}

/// `rustc-4711 [001] ..... 12.345678: malloc: (0x55d0) a=24 b=0 c=1`: its function, and for how
/// many bytes it asks.
fn parse(line: &str) -> Option<(&'static str, u64)> {
    let (_, event) = line.split_once(": ")?;
    let (name, rest) = event.split_once(": ")?;
    let (name, sizes) = FUNCTIONS.iter().find(|(function, _)| *function == name)?;
    let values: Vec<u64> = rest
        .split(' ')
        .filter_map(|word| word.split_once('=')?.1.parse().ok())
        .collect();
    let mut bytes = 1u64;
    for argument in *sizes {
        bytes = bytes.wrapping_mul(*values.get(*argument)?);
    }
    Some((name, bytes))
}

/// Returns where the functions are in a file, as binutils tell: those that it has.
fn offsets(file: &Path) -> Result<BTreeMap<&'static str, u64>> {
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(file);
    let symbols = run(nm)?.succeeded()?.stdout;
    let mut readelf = Command::new("readelf");
    readelf.arg("-lW").arg(file);
    let headers = run(readelf)?.succeeded()?.stdout;
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    // Type, offset, address, physical address, bytes in the file.
    let segments: Vec<(u64, u64, u64)> = headers
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["LOAD", offset, address, _, bytes, ..] = words[..] else {
                return None;
            };
            Some((number(offset)?, number(address)?, number(bytes)?))
        })
        .collect();
    let mut found = BTreeMap::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, name] = words[..] else { continue };
        let Some((name, _)) = FUNCTIONS.iter().find(|(function, _)| *function == name) else {
            continue;
        };
        let address = number(address).with_context(|| format!("no address: {line}"))?;
        let segment = segments
            .iter()
            .find(|(_, start, bytes)| (*start..start + bytes).contains(&address));
        let (offset, start, _) = segment.with_context(|| format!("in no segment: {line}"))?;
        found.insert(*name, address - start + offset);
    }
    Ok(found)
}

/// A copy of the compiler's executable, so that no other compilation is counted, beside its own
/// libraries.
fn copy_of_rustc(directory: &Path) -> Result<PathBuf> {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "sysroot"]);
    let sysroot = run(ask)?.succeeded()?.stdout;
    let sysroot = Path::new(sysroot.trim());
    let copy = directory.join("bin/rustc");
    std::fs::create_dir(directory.join("bin"))?;
    std::fs::copy(sysroot.join("bin/rustc"), &copy)?;
    symlink(sysroot.join("lib"), directory.join("lib"))?;
    Ok(copy)
}

/// The compiler, up to an object.
pub(super) fn rustc(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let compiler = copy_of_rustc(directory.path())?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/words.rs");
    let out = directory.path().join("words.o");
    let words = [
        compiler.to_str().context("not a plain path")?,
        "--edition=2024",
        "--crate-type=bin",
        "-Copt-level=2",
        "--emit=obj",
        "-o",
        out.to_str().context("not a plain path")?,
        source,
    ];
    let functions = offsets(&compiler)?;
    if functions.is_empty() {
        // A distribution's own has the C library's.
        return super::program(context, &words).map(drop);
    }
    let events = TracefsEvents::start(context, &compiler, &functions)?;
    let recording = Memtap::record(context)?.command(words).run()?.whole()?;
    let counts = events.counts()?;
    super::agree(&counts, &recording.summary()?.functions()?)?;
    // Its parser, its type checker and LLVM are all there, under their names.
    let folded = recording.folded()?;
    for function in ["rustc_parse", "rustc_hir_typeck", "llvm::"] {
        ensure!(
            folded.text.contains(function),
            "no {function} in {} stacks",
            folded.text.lines().count()
        );
    }
    Ok(())
}
