//! Names from outside steer no terminal: those of processes, paths, symbols, cgroups and arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Memtap, Need, RunningProgram, TestCgroup, eventually, run};
use tempfile::TempDir;

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case(
        "escapes::names_of_a_process",
        &[Need::Compiler, Need::Binutils],
        names_of_a_process,
    ),
    case("escapes::arguments", &[], arguments),
    case("escapes::cgroup", &[Need::Cgroup2], cgroup),
];

/// A title, a colour, a line, a direction, a one-byte introducer in UTF-8, and a byte that is none.
const HOSTILE: &[u8] = b"\x1b]0;PW\x07\x1b[31mx\ny\xe2\x80\xaez\xc2\x9b2J\xff";

/// Hostile without bytes that are no UTF-8, in a symbol.
const SYMBOL: &str = "f\u{1b}]0;PW\u{7}\u{1b}[31m\u{202e}g";

/// Fails where a text has a control character, a control of direction, or bytes that are no UTF-8.
fn is_harmless(what: &str, text: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(text).with_context(|| format!("{what} is no UTF-8"))?;
    let found = text.char_indices().find(|(_, it)| {
        let is_bidirectional = matches!(
            it,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        is_bidirectional || it.is_control() && !matches!(it, '\n' | '\t')
    });
    if let Some((at, it)) = found {
        let around: String = text[..at]
            .chars()
            .rev()
            .take(60)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        anyhow::bail!("{what} has {it:?} after {around:?}");
    }
    Ok(())
}

/// A program whose path, library, symbol and own name are hostile.
struct HostileProgram {
    directory: TempDir,
}

impl HostileProgram {
    fn build() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let program = Self { directory };
        std::fs::create_dir(program.hostile_directory())?;
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
        let object = program.directory.path().join("library.o");
        let made = |words: &[&OsStr]| -> Result<()> {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            run(command)?.succeeded()?;
            Ok(())
        };
        let source = format!("{fixtures}/escapes_library.c");
        made(
            &["cc", "-O1", "-g0", "-fPIC", "-c", &source, "-o"]
                .map(OsStr::new)
                .into_iter()
                .chain([object.as_os_str()])
                .collect::<Vec<_>>(),
        )?;
        let renamed = format!("--redefine-sym=hostile={SYMBOL}");
        made(&["objcopy".as_ref(), renamed.as_ref(), object.as_os_str()])?;
        made(&[
            "cc".as_ref(),
            "-shared".as_ref(),
            object.as_os_str(),
            "-o".as_ref(),
            program.library().as_os_str(),
        ])?;
        let source = format!("{fixtures}/escapes.c");
        made(&[
            "cc".as_ref(),
            "-O1".as_ref(),
            source.as_ref(),
            "-o".as_ref(),
            program.path().as_os_str(),
        ])?;
        Ok(program)
    }

    fn hostile_directory(&self) -> PathBuf {
        self.directory.path().join(OsStr::from_bytes(HOSTILE))
    }

    fn library(&self) -> PathBuf {
        self.hostile_directory()
            .join(OsStr::from_bytes(b"lib\x1b[2J\xff.so"))
    }

    fn path(&self) -> PathBuf {
        self.hostile_directory()
            .join(OsStr::from_bytes(b"prog\x1b[2J\xff"))
    }

    /// The words of a command that runs for so long.
    fn command(&self, seconds: u32) -> [OsString; 4] {
        let seconds = seconds.to_string();
        [
            self.path().into(),
            self.library().into(),
            SYMBOL.into(),
            seconds.into(),
        ]
    }
}

fn names_of_a_process(context: &Context) -> Result<()> {
    let program = HostileProgram::build()?;
    let words = program.command(120);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let target = RunningProgram::start(command)?;
    let pid = target.pid().to_string();
    let comm = format!("/proc/{pid}/comm");
    let is_named = eventually(memtap_tests::LIMIT, || Ok(std::fs::read(&comm)?.contains(&0x1b)))?;
    ensure!(is_named, "the program does not take its name");
    let every = ["--sample", "1", "--max-overhead", "off"];
    let of_it = ["-p", &pid, "-d", "600ms"];
    let mut escaped = 0;
    for options in [
        &["record", "-v"][..],
        &["record", "-vv", "--live", "--events", "heap,region"],
        &[
            "record",
            "-v",
            "-o",
            "out.svg",
            "-o",
            "out.folded",
            "--raw",
            "out.raw",
        ],
        &["record", "-v", "--per-pid", "-o", "-"],
        &["live", "-v"],
        &["live", "--interval", "200ms"],
        &["estimate"],
    ] {
        let mut memtap = Memtap::bare(context)?.arguments(options).arguments(of_it);
        if options[0] != "estimate" {
            memtap = memtap.arguments(every);
        }
        let recording = memtap.run()?.ended_with(0)?;
        let (stdout, stderr) = (&recording.finished.stdout, &recording.finished.stderr);
        is_harmless(&format!("{options:?}: standard output"), stdout.as_bytes())?;
        is_harmless(&format!("{options:?}: standard error"), stderr.as_bytes())?;
        ensure!(
            stderr.contains(r"\u{1b}]0;PW\u{7}\u{1b}[41") || stdout.contains(r"\u{1b}]0;PW\u{7}\u{1b}[41"),
            "{options:?}: the process is not named"
        );
        for file in ["out.svg", "out.folded", "out.raw"] {
            let path = recording.directory().join(file);
            if path.exists() {
                let text = std::fs::read(path)?;
                is_harmless(file, &text)?;
                let text = String::from_utf8_lossy(&text);
                let is_named = text.contains(r"f\u{1b}]0:PW\u{7}\u{1b}[31m\u{202e}g");
                ensure!(is_named || file == "out.raw", "{file} does not name the function");
                escaped += 1;
            }
        }
    }
    ensure!(escaped == 3, "{escaped} files");
    drop(target);
    // A command of this name, whose path is told.
    for options in [&["record", "-v"][..], &["live", "-v"], &["estimate"]] {
        let recording = Memtap::bare(context)?
            .arguments(options)
            .command(program.command(1))
            .run()?
            .ended_with(0)?;
        is_harmless("standard output", recording.finished.stdout.as_bytes())?;
        is_harmless("standard error", recording.finished.stderr.as_bytes())?;
    }
    Ok(())
}

/// Typed words come back in messages, from memtap and from the parser of arguments.
fn arguments(context: &Context) -> Result<()> {
    let hostile = OsStr::from_bytes(HOSTILE);
    let with = |before: &str, after: &str| {
        let mut word = OsString::from(before);
        word.push(hostile);
        word.push(after);
        word
    };
    let file = with("./", ".svg");
    let none = with("/nonexistent/", ".svg");
    let words = |words: &[&dyn AsRef<OsStr>]| -> Vec<OsString> {
        words.iter().map(|word| word.as_ref().to_owned()).collect()
    };
    let cases = [
        words(&[&hostile]),
        words(&[&"record", &"--\u{1b}[31m"]),
        words(&[&"record", &"-p", &"\u{1b}[31m"]),
        words(&[&"record", &"-p", &hostile]),
        words(&[&"record", &"-a", &"--events", &"\u{1b}[31m\n\u{202e}"]),
        words(&[&"record", &"-a", &"-o", &with("a.", "")]),
        words(&[&"record", &"-a", &"-o", &none]),
        words(&[&"record", &"--comm", &hostile]),
        words(&[&"record", &"--cgroup", &hostile]),
        words(&[&"record", &"-a", &"--debug-dir", &hostile]),
        words(&[&"record", &"-a", &"--symbol", &hostile]),
        words(&[&"record", &"--", &hostile]),
        words(&[&"estimate", &"--", &hostile]),
        words(&[&"live", &"-a", &"--sort", &"\u{1b}c"]),
    ];
    for words in cases {
        let recording = Memtap::bare(context)?.arguments(&words).run()?;
        let code = recording.finished.code();
        ensure!(code == 1 || code == 2, "{words:?} ended with {code}");
        let recording = recording
            .refused(code, &["error"])
            .with_context(|| format!("{words:?}"))?;
        is_harmless(&format!("{words:?}"), recording.finished.stderr.as_bytes())?;
    }
    let recording = Memtap::bare(context)?
        .arguments(["record", "-v", "-o"])
        .argument(&file)
        .command(["sh", "-c", ":"])
        .run()?
        .ended_with(0)?;
    is_harmless("the name of an output", recording.finished.stderr.as_bytes())?;
    ensure!(recording.directory().join(&file).exists(), "no file");
    Ok(())
}

/// A cgroup's name has no line break, and anything else.
fn cgroup(context: &Context) -> Result<()> {
    let parent = TestCgroup::create(context)?;
    let cgroup = parent.below("escapes\u{1b}[31m\u{202e}")?;
    let recording = Memtap::bare(context)?
        .arguments(["record", "-v", "-d", "300ms", "--cgroup"])
        .argument(&cgroup)
        .run()?
        .ended_with(0)?;
    let stderr = &recording.finished.stderr;
    is_harmless("standard error", stderr.as_bytes())?;
    ensure!(
        stderr.contains(r"escapes\u{1b}[31m\u{202e}"),
        "it is not named: {stderr}"
    );
    Ok(())
}
