//! The share of its throughput that a server keeps: Debian's redis-server, with the allocator that
//! it comes with, under redis-benchmark over loopback. Server, client and memtap share the machine.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{BudgetRound, Spans};
use crate::measure::empty;
use crate::programs::group::ProcessGroup;
use crate::programs::redis::RedisServer;
use crate::tools::{RunningTracer, at_work, memtap};
use crate::{interrupt, progress};
use test_support::privilege;

/// The row's name.
pub(super) const NAME: &str = "memtap record -p, its default budget, on redis-server";

/// A server's speed varies from second to second: it gets more and longer rounds than the loop.
const ROUNDS: usize = 3;
const LONGER: u32 = 2;

/// The time after which memtap has begun: its start is not a cost of tracing.
const BEGUN: Duration = Duration::from_secs(2);

/// The server's work so far, and the CPU time that it has taken.
struct Look {
    at: Instant,
    requests: u64,
    cpu_s: f64,
}

fn look(server: &RedisServer) -> Result<Look> {
    let info = server.ask("info")?;
    let requests = info
        .lines()
        .find_map(|line| {
            line.strip_prefix("total_commands_processed:")?
                .trim()
                .parse()
                .ok()
        })
        .context("the server does not tell how much it has done")?;
    Ok(Look {
        at: Instant::now(),
        requests,
        cpu_s: server.cpu_s()?,
    })
}

/// Requests per second of the server's CPU time, and per second on the clock, over a span.
fn rates(server: &RedisServer, span: Duration) -> Result<(f64, f64)> {
    let first = look(server)?;
    while first.at.elapsed() < span {
        interrupt::check()?;
        sleep(Duration::from_millis(20));
    }
    let last = look(server)?;
    let requests = last.requests.saturating_sub(first.requests);
    let cpu_s = last.cpu_s - first.cpu_s;
    ensure!(
        requests > 1000 && cpu_s > 0.0,
        "failed to measure: the server answered {requests} requests"
    );
    let requests = f64::from(u32::try_from(requests).context("too many requests")?);
    Ok((requests / cpu_s, requests / (last.at - first.at).as_secs_f64()))
}

/// The server's rounds; and what it keeps of its requests per second on the clock, in each.
pub(super) fn rounds(memtap: &Path, spans: &Spans, directory: &Path) -> Result<(Vec<BudgetRound>, Vec<f64>)> {
    empty(directory)?;
    let server = RedisServer::start_alone(directory)?;
    let mut client = Command::new("redis-benchmark");
    client.args(["-h", "127.0.0.1", "-p", &server.port().to_string()]);
    // As many requests as it takes: it is ended.
    client.args([
        "-n",
        "2000000000",
        "-c",
        "20",
        "-d",
        "100",
        "-r",
        "100000",
        "-t",
        "set",
        "-q",
    ]);
    let clients = directory.join("client");
    empty(&clients)?;
    let _client = ProcessGroup::start(&mut client, &clients)?;
    sleep(Duration::from_secs(1));
    let (mut rounds, mut on_the_clock) = (Vec::new(), Vec::new());
    let count = ROUNDS * spans.rounds;
    for round in 1..=count {
        progress::say(&format!("budget: round {round} of {count}: redis-server"));
        let before = rates(&server, LONGER * spans.bare)?;
        let running = attach(memtap, &server, &directory.join("tracer"))?;
        sleep(BEGUN);
        let traced = rates(&server, LONGER * spans.traced)?;
        running.stop()?;
        let after = rates(&server, LONGER * spans.bare)?;
        let bare = f64::midpoint(before.0, after.0);
        on_the_clock.push(traced.1 / f64::midpoint(before.1, after.1));
        rounds.push(BudgetRound {
            bare_per_s: bare,
            traced_per_s: traced.0,
            seen_share: None,
        });
    }
    server.stop()?;
    Ok((rounds, on_the_clock))
}

fn attach(memtap: &Path, server: &RedisServer, directory: &Path) -> Result<RunningTracer> {
    empty(directory)?;
    let mut command = privilege::elevated(memtap);
    command.args(["record", "-p", &server.pid().to_string(), "-o"]);
    command.arg(directory.join("memtap.folded"));
    let running = RunningTracer::start(&mut command, directory)?;
    at_work(running, || Ok(()), || memtap::is_ready(directory))
}
