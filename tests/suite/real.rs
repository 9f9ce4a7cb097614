//! Programs as people run them: what memtap counts of a run is what a shim counts that is preloaded
//! into the same run, or the kernel where nothing can be preloaded.
//!
//! The shim calls the C library's functions by their other names, which are at the same addresses:
//! memtap sees its calls as the program's.

mod rustc;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Context, Count, Counts, LIMIT, Memtap, MemtapRecording, MemtapSession, Need, RunningProgram, Shim,
    eventually, run,
};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("real::gcc", &[Need::Compiler], gcc),
    case("real::node", &[Need::Compiler, Need::Node], node),
    case("real::java", &[Need::Compiler, Need::Java], java),
    case(
        "real::rustc",
        &[Need::Compiler, Need::Rustc, Need::Binutils],
        rustc::rustc,
    ),
    case("real::tokio", &[Need::Compiler], tokio),
    case("real::nginx", &[Need::Compiler, Need::Nginx], nginx),
    case("real::postgres", &[Need::Compiler, Need::Postgres], postgres),
];

/// The two may differ by so many thousandths.
const THOUSANDTHS: u64 = 10;

/// Fails unless two counts agree, and are of something.
fn agree(other: &Counts, memtap: &Counts) -> Result<()> {
    let sum = |counts: &Counts| counts.values().copied().sum::<Count>();
    let (expected, found) = (sum(other), sum(memtap));
    let is_near = |expected: u64, found: u64| expected.abs_diff(found) * 1000 <= expected * THOUSANDTHS;
    ensure!(expected.calls > 1000, "no workload: {expected:?}");
    ensure!(
        is_near(expected.calls, found.calls) && is_near(expected.bytes, found.bytes),
        "the second opinion is {expected:?}, memtap has {found:?}: {other:?}, {memtap:?}"
    );
    eprintln!("suite: the second opinion is {expected:?}, memtap has {found:?}");
    Ok(())
}

/// memtap about to run a command behind the shim.
fn behind_the_shim<'a>(context: &'a Context, shim: &Shim, words: &[&str]) -> Result<Memtap<'a>> {
    let preload = format!("LD_PRELOAD={}", shim.library.display());
    let file = format!("SHIM_FILE={}", shim.file.display());
    Ok(Memtap::record(context)?.command([&["env", &preload, &file], words].concat()))
}

/// Returns what memtap has of a command behind the shim, without `env`, which was not yet behind
/// it.
fn counted(recording: &MemtapRecording) -> Result<Counts> {
    let mut sums = Counts::new();
    for process in recording.summary()?.processes()? {
        if process.comm != "env" {
            for (function, count) in process.functions {
                *sums.entry(function).or_default() += count;
            }
        }
    }
    Ok(sums)
}

/// A command that ends by itself, and all that it starts.
fn program(context: &Context, words: &[&str]) -> Result<MemtapRecording> {
    let directory = tempfile::tempdir()?;
    let shim = Shim::create(context, directory.path())?;
    let recording = behind_the_shim(context, &shim, words)?.run()?.whole()?;
    agree(&shim.counts()?, &counted(&recording)?)?;
    Ok(recording)
}

/// The driver, the compiler proper, the assembler and the linker. The compiler makes most of its
/// calls before a table of its size can be made: its stacks are whole since it is stopped until
/// then.
fn gcc(context: &Context) -> Result<()> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/functions.c");
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("out");
    let out = out.to_str().context("not a plain path")?;
    let recording = program(context, &["cc", "-O2", "-g", "-w", source, "-o", out])?;
    let summary = recording.summary()?;
    let (all, whole) = (
        summary.number("/stacks/distinct")?,
        summary.number("/stacks/complete")?,
    );
    ensure!(
        all > 1000 && whole == all && summary.number("/unwind_tables/stops")? > 0,
        "of {all} stacks {whole} are whole: {}",
        summary.json["unwind_tables"]
    );
    let folded = recording.folded()?;
    ensure!(
        folded
            .lines
            .iter()
            .any(|line| line.passes("c_parse_file()") && line.passes("toplev::main(int, char**)")),
        "the compiler does not parse: {}",
        folded.text
    );
    Ok(())
}

fn node(context: &Context) -> Result<()> {
    let script = "const made = []; for (let i = 0; i < 2000; i++) made.push(Buffer.allocUnsafeSlow(10000 + i)); \
                  const text = JSON.stringify(Array.from({ length: 50000 }, (_, i) => ({ i, s: 'x'.repeat(i % 50) }))); \
                  console.log(made.length, JSON.parse(text).length);";
    program(context, &["node", "-e", script]).map(drop)
}

/// The Java virtual machine asks the C library for what is not on its own heap. It compiles a
/// class, and runs it.
fn java(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let source = directory.path().join("Words.java");
    std::fs::write(
        &source,
        "import java.util.*; class Words { public static void main(String[] a) throws Exception { \
         Map<String, Integer> m = new TreeMap<>(); for (int i = 0; i < 200000; i++) m.merge(\"w\" + i % 9999, 1, Integer::sum); \
         var z = new java.util.zip.Deflater(); byte[] in = m.toString().getBytes(), out = new byte[1 << 20]; \
         for (int i = 0; i < 50; i++) { z.reset(); z.setInput(in); z.finish(); z.deflate(out); } \
         System.out.println(m.size()); } }",
    )?;
    let words = ["java", source.to_str().context("not a plain path")?];
    // As people start it: by a link, from which its libraries are not found.
    let launched = Memtap::record(context)?.command(words).run()?.whole()?;
    let functions = launched.summary()?.functions()?;
    let calls: u64 = functions.values().map(|count| count.calls).sum();
    ensure!(calls > 1000, "{functions:?}");
    program(context, &words).map(drop)
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Connects to a server that may not listen yet.
fn connect(session: &mut MemtapSession<'_>, port: u16) -> Result<TcpStream> {
    session.wait_until_tracing()?;
    let mut stream = None;
    eventually(LIMIT, || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        Ok(stream.is_some())
    })?;
    let stream = stream.context("the server does not listen")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A server on tokio, with a few connections and thousands of lines.
fn tokio(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let shim = Shim::create(context, directory.path())?;
    let port = free_port()?;
    let words = [env!("CARGO_BIN_EXE_echo"), &port.to_string()];
    let mut session = behind_the_shim(context, &shim, &words)?.start()?;
    let first = connect(&mut session, port)?;
    for _ in 0..5 {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        for number in 0..1000 {
            stream.write_all(format!("line {number} {}\n", "x".repeat(number)).as_bytes())?;
            let mut answer = String::new();
            reader.read_line(&mut answer)?;
            ensure!(
                answer.starts_with(&format!("LINE {number} ")),
                "another answer: {answer}"
            );
        }
    }
    (&first).write_all(b"end\n")?;
    let recording = session.finish()?.whole()?;
    agree(&shim.counts()?, &counted(&recording)?)
}

/// A master and two workers.
fn nginx(context: &Context) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path();
    let shim = Shim::create(context, place)?;
    let port = free_port()?;
    std::fs::create_dir(place.join("temp"))?;
    std::fs::write(place.join("page.html"), "x".repeat(5000))?;
    let temp = |what: &str| format!("{what}_temp_path {}/temp/{what};", place.display());
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(temp)
        .concat();
    std::fs::write(
        place.join("nginx.conf"),
        format!(
            "daemon off; user root; worker_processes 2; pid {0}/pid; error_log {0}/error.log; env LD_PRELOAD; env SHIM_FILE; \
             events {{}} http {{ access_log {0}/access.log; {temps} gzip on; gzip_types *; keepalive_requests 100; \
             server {{ listen 127.0.0.1:{port}; root {0}; }} }}",
            place.display()
        ),
    )?;
    let configuration = place.join("nginx.conf");
    let words = [
        "nginx",
        "-e",
        "stderr",
        "-c",
        configuration.to_str().context("not a plain path")?,
    ];
    let mut session = behind_the_shim(context, &shim, &words)?.start()?;
    drop(connect(&mut session, port)?);
    for _ in 0..400 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        for last in [false, false, true] {
            let connection = if last { "close" } else { "keep-alive" };
            let request = format!(
                "GET /page.html HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: {connection}\r\n\r\n"
            );
            stream.write_all(request.as_bytes())?;
        }
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers)?;
        let answers = String::from_utf8_lossy(&answers);
        ensure!(answers.matches("200 OK").count() == 3, "other answers: {answers}");
    }
    let pid = std::fs::read_to_string(place.join("pid"))?;
    context.signal(pid.trim().parse()?, "QUIT")?;
    let recording = session.finish()?.whole()?;
    agree(&shim.counts()?, &counted(&recording)?)
}

/// A cluster of a test's own, and its server.
struct Postgres {
    server: RunningProgram,
    place: tempfile::TempDir,
}

impl Postgres {
    /// A command as the server's user, who may be no other than `postgres`.
    fn command(context: &Context, place: &Path, words: &[&str]) -> Command {
        let mut command = context.privileged("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "env"])
            .arg(format!("PGHOST={}", place.display()))
            .arg("PGUSER=postgres")
            .arg("PGDATABASE=postgres")
            .args(words)
            .current_dir(place);
        command
    }

    fn start(context: &Context, shim: &Shim, place: tempfile::TempDir) -> Result<Self> {
        let path = place.path().to_str().context("not a plain path")?.to_owned();
        let cluster = format!("{path}/cluster");
        let initialise = [
            "initdb",
            "--no-sync",
            "--auth=trust",
            "--locale=C",
            "-U",
            "postgres",
            "-D",
            &cluster,
        ];
        run(Self::command(context, place.path(), &initialise))?.succeeded()?;
        let preload = format!("LD_PRELOAD={}", shim.library.display());
        let file = format!("SHIM_FILE={}", shim.file.display());
        let serve = [
            "env",
            &preload,
            &file,
            "postgres",
            "-D",
            &cluster,
            "-k",
            &path,
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ];
        let server = RunningProgram::start(Self::command(context, place.path(), &serve))?;
        let postgres = Self { server, place };
        let is_ready = eventually(LIMIT, || {
            let ask = ["psql", "-qc", "SELECT 1"];
            Ok(run(Self::command(context, postgres.place.path(), &ask))?.code() == 0)
        })?;
        ensure!(is_ready, "it does not answer: {}", postgres.server.stderr());
        Ok(postgres)
    }

    /// The process that serves a connection.
    fn backend(&self) -> Result<u32> {
        let mut found = None;
        let is_there = eventually(LIMIT, || {
            for entry in std::fs::read_dir("/proc")? {
                let Some(pid) = entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<u32>().ok())
                else {
                    continue;
                };
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let is_child = status.contains(&format!("\nPPid:\t{}\n", self.server.pid()));
                if is_child && title.contains("[local]") {
                    found = Some(pid);
                }
            }
            Ok(found.is_some())
        })?;
        ensure!(is_there, "no connection is served");
        found.context("no backend")
    }
}

/// Stops a process, and waits until it stands still.
fn stop(context: &Context, pid: u32) -> Result<()> {
    context.signal(pid, "STOP")?;
    let stands = eventually(LIMIT, || {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") T "))
    })?;
    ensure!(stands, "{pid} goes on");
    Ok(())
}

/// A backend that memtap attaches to between two of its queries, or in one, and lets go a second
/// later.
fn postgres(context: &Context) -> Result<()> {
    let place = tempfile::tempdir()?;
    let mut chown = context.privileged("chown");
    chown.arg("postgres").arg(place.path());
    run(chown)?.succeeded()?;
    let shim = Shim::create(context, place.path())?;
    let postgres = Postgres::start(context, &shim, place)?;
    let directory = postgres.place.path();
    let fill = ["pgbench", "-q", "-i", "-s", "1"];
    run(Postgres::command(context, directory, &fill))?.succeeded()?;
    let queries = Postgres::command(context, directory, &["pgbench", "-n", "-T", "30"]);
    let client = RunningProgram::start(queries)?;
    // Its first connection only asks how large the tables are.
    std::thread::sleep(Duration::from_secs(1));
    let backend = postgres.backend()?;
    // It stands still while the two begin and end, so that they have the same calls.
    stop(context, backend)?;
    let mut session = Memtap::record(context)?.process(backend).start()?;
    session.wait_until_tracing()?;
    let before = shim.counts()?;
    context.signal(backend, "CONT")?;
    std::thread::sleep(Duration::from_secs(1));
    stop(context, backend)?;
    let mut counts = shim.counts()?;
    session.signal("INT")?;
    let recording = session.finish()?.whole()?;
    context.signal(backend, "CONT")?;
    drop(client);
    for (function, count) in before {
        let after = counts.entry(function).or_default();
        after.calls -= count.calls;
        after.bytes -= count.bytes;
    }
    let found = recording.summary()?.functions()?;
    // Its own shutdown: killed, it would leave its shared memory.
    context.signal(postgres.server.pid(), "INT")?;
    postgres.server.finish(LIMIT)?;
    agree(&counts, &found)
}
