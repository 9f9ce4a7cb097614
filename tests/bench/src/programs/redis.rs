//! redis-server under redis-benchmark, over loopback.
//!
//! The figures of a run are those of so many requests: the server's own CPU time, and the time that
//! the benchmark took. Debian's server calls jemalloc's malloc; libc is loaded before it here, so
//! that the calls that memtap traces are made.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, ensure};

use super::group::ProcessGroup;
use super::under::{ProgramOutcome, Under};
use super::{ProgramsSetup, program};
use crate::code::ProbeState;
use crate::interrupt;
use crate::measure::empty;
use crate::results::RowKind;
use crate::running_loop::Turns;
use crate::target::LoopTarget;
use crate::tools::{Heaptrack, Launcher as _, RunningTracer, at_work, bpftrace_command, memtap, perf};
use test_support::{privilege, process, workspace};

/// Requests that figures are scaled to.
const REQUESTS: u32 = 100_000;

/// A valgrind's server gets fewer.
const FEW_REQUESTS: u32 = 10_000;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Returns why redis cannot take part.
pub(crate) fn missing() -> Option<Error> {
    let programs = ["redis-server", "redis-benchmark", "redis-cli"];
    let missing = programs.into_iter().find(|name| program(name).is_err())?;
    Some(anyhow!("{missing} is not installed"))
}

/// Runs a fresh server under the tool.
pub(crate) fn run(tool: Under, place: &ProgramsSetup) -> Result<ProgramOutcome> {
    let directory = place.directory.join("run");
    empty(&directory)?;
    let turns = Turns {
        depth: 0,
        pairs: 0,
        batches: 0,
        threads: 1,
        starts_one: false,
    };
    let sentinel = LoopTarget::start(&place.sentinel, &turns)?;
    let server = RedisServer::start(tool, sentinel.libc(), &directory)?;
    let tracer = attach(tool, place, &server, &sentinel, &directory)?;
    let requests = match tool {
        Under::Massif | Under::Dhat => FEW_REQUESTS,
        _ => REQUESTS,
    };
    // The first requests fill the tables.
    server.benchmark(requests / 10)?;
    let (cpu, started) = (server.cpu_s()?, Instant::now());
    let requests_per_s = server.benchmark(requests)?;
    let scale = f64::from(REQUESTS) / f64::from(requests);
    let mut outcome = ProgramOutcome {
        cpu_s: (server.cpu_s()? - cpu) * scale,
        wall_s: started.elapsed().as_secs_f64() * scale,
        requests_per_s: Some(requests_per_s),
        ..ProgramOutcome::default()
    };
    if let Some(tracer) = tracer {
        tracer.stop()?;
    }
    server.stop()?;
    if tool == Under::Perf {
        // Its messages are where a tracer's are that runs beside the program.
        fs::copy(directory.join("stderr"), directory.join("messages"))
            .context("failed to copy perf's messages")?;
    }
    tool.look(&directory, &mut outcome)?;
    empty(&directory)?;
    Ok(outcome)
}

/// A tracer that comes to the running server.
fn attach(
    tool: Under,
    place: &ProgramsSetup,
    server: &RedisServer,
    sentinel: &LoopTarget,
    directory: &Path,
) -> Result<Option<RunningTracer>> {
    let libc = sentinel.libc();
    let pid = server.pid.to_string();
    let mut command = match tool {
        Under::Memtap | Under::MemtapLive | Under::MemtapBudget => {
            let mut command = privilege::elevated(&place.memtap);
            command.args(["record", "-p", &pid]).args(tool.options());
            command.arg("-o").arg(directory.join("memtap.folded"));
            command.arg("--summary").arg(directory.join("summary.json"));
            command
        }
        Under::Perf => {
            perf::define(libc)?;
            perf::record(&["--call-graph", "fp", "-p", &pid], directory)
        }
        Under::Bpftrace => {
            let probe = format!("uprobe:{}:malloc", libc.display());
            let mut command = bpftrace_command();
            command.args(["-f", "json", "-p", &pid, "-e"]);
            command.arg(format!("{probe} /pid == {pid}/ {{ @[ustack] = sum(arg0) }}"));
            command
        }
        _ => return Ok(None),
    };
    let running = RunningTracer::start(&mut command, directory)?;
    let malloc = sentinel.malloc_in(server.pid)?;
    let is_ready = || tool.kind() == RowKind::Peer || memtap::is_ready(directory);
    at_work(running, || malloc.wait(ProbeState::Present), is_ready).map(Some)
}

/// A server on a free port; ended when dropped.
pub(crate) struct RedisServer {
    group: ProcessGroup,
    port: u16,
    /// The server's own, where a tool started it.
    pid: u32,
}

impl RedisServer {
    fn start(tool: Under, libc: &Path, directory: &Path) -> Result<Self> {
        let server = program("redis-server")?;
        let port = free_port()?;
        let mut command = if tool == Under::Heaptrack {
            Heaptrack.command(Path::new(&server), directory)?
        } else {
            let mut words = tool.emulator(directory);
            words.push(server);
            let mut command = workspace::untouched(Path::new(&words[0]));
            command.args(&words[1..]);
            command
        };
        command.env("LD_PRELOAD", libc);
        Self::listen(command, port, directory)
    }

    /// A server that nobody watches, with its own allocator.
    pub(crate) fn start_alone(directory: &Path) -> Result<Self> {
        let server = program("redis-server")?;
        Self::listen(workspace::untouched(Path::new(&server)), free_port()?, directory)
    }

    /// Starts it, and waits until it answers.
    fn listen(mut command: Command, port: u16, directory: &Path) -> Result<Self> {
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--daemonize", "no", "--dir"]).arg(directory);
        let mut server = Self {
            group: ProcessGroup::start(&mut command, directory)?,
            port,
            pid: 0,
        };
        let started = Instant::now();
        server.pid = loop {
            interrupt::check()?;
            if let Some(pid) = server.ask("info").ok().as_deref().and_then(process_id) {
                break pid;
            }
            ensure!(
                !server.group.has_ended(),
                "the server ended: {}",
                server.group.last_words()
            );
            ensure!(started.elapsed() < START_LIMIT, "the server did not answer");
            sleep(Duration::from_millis(20));
        };
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn ask(&self, question: &str) -> Result<String> {
        let mut command = Command::new(program("redis-cli")?);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), question]);
        process::output(&mut command, "ask the server")
    }

    /// Sends requests, and returns how many were answered in a second.
    fn benchmark(&self, requests: u32) -> Result<f64> {
        interrupt::check()?;
        let mut command = Command::new(program("redis-benchmark")?);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-n",
            &(requests / 2).to_string(),
        ]);
        command.args(["-c", "20", "-d", "200", "-r", "10000", "-t", "set,get", "--csv"]);
        let text = process::output(&mut command, "run redis-benchmark")?;
        rate(&text).with_context(|| format!("failed to read redis-benchmark's figures: {text:?}"))
    }

    /// Seconds of CPU time that the server's threads have taken.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let directory = format!("/proc/{}/task", self.pid);
        let tasks = fs::read_dir(&directory).context("failed to see the server's threads")?;
        let mut seconds = 0.0;
        for task in tasks {
            let file = task
                .context("failed to see the server's threads")?
                .path()
                .join("schedstat");
            let text = fs::read_to_string(&file).context("failed to see a thread of the server")?;
            seconds += run_s(&text).with_context(|| format!("failed to read a thread's times: {text:?}"))?;
        }
        Ok(seconds)
    }

    /// Has the server end as its users do, so that a tool that started it writes its report.
    pub(crate) fn stop(self) -> Result<()> {
        let mut command = Command::new(program("redis-cli")?);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "shutdown",
            "nosave",
        ]);
        process::output(&mut command, "end the server")?;
        self.group.finish(STOP_LIMIT)
    }
}

/// A port that nobody listens at.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    Ok(listener
        .local_addr()
        .context("failed to find a free port")?
        .port())
}

/// The server's process, from its own account of itself.
fn process_id(info: &str) -> Option<u32> {
    info.lines()
        .find_map(|line| line.strip_prefix("process_id:")?.trim().parse().ok())
}

/// Both kinds of requests together, from lines like `"SET","63291.14","0.144",…`: as many of each.
fn rate(csv: &str) -> Option<f64> {
    let rate = |line: &str| -> Option<f64> { line.split(',').nth(1)?.trim_matches('"').parse().ok() };
    let rates: Vec<f64> = csv.lines().filter_map(rate).filter(|&rate| rate > 0.0).collect();
    let seconds_per_request: f64 = rates.iter().map(|rate| 1.0 / rate).sum();
    let kinds = u32::try_from(rates.len()).ok().filter(|&kinds| kinds > 0)?;
    Some(f64::from(kinds) / seconds_per_request)
}

/// The time on a processor, which is the first of the numbers of `schedstat`, in nanoseconds.
fn run_s(schedstat: &str) -> Option<f64> {
    let nanoseconds: f64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say() {
        assert_eq!(
            process_id("# RedisServer\r\nprocess_id:4711\r\ntcp_port:1\r\n"),
            Some(4711)
        );
        assert_eq!(process_id("nothing"), None);
        let csv =
            "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"100.0\",\"0.1\"\n\"GET\",\"300.0\",\"0.1\"\n";
        assert_eq!(rate(csv).map(f64::round), Some(150.0));
        assert_eq!(rate(""), None);
        assert_eq!(run_s("1500000000 250 3\n"), Some(1.5));
        assert_eq!(run_s(""), None);
    }
}
