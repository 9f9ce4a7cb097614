//! A server as the distribution ships it, under memtap and under the shim, with the same clients.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use memtap_tests::{Context, Need, eventually};

use super::programs::{Leeway, agrees};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[case(
    "live::memcached",
    &[Need::Compiler, Need::Memcached],
    memcached,
)];

/// The time that the server may take until it listens, and for one answer.
const LIMIT: Duration = Duration::from_secs(30);

const CLIENTS: usize = 20;
const ROUNDS: usize = 200;

/// memcached takes its blocks from libc's malloc: pages of items, and a buffer for each answer to
/// `stats`.
fn memcached(context: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ports = dir.path().join("ports");
    // Any free port of the loopback, one worker, and a client that may stop it; root has to be
    // asked for.
    let words = [
        "memcached",
        "-l",
        "127.0.0.1",
        "-p",
        "-1",
        "-t",
        "1",
        "-A",
        "-u",
        "root",
    ];
    let environment = [(
        "MEMCACHED_PORT_FILENAME",
        ports.to_str().context("not a plain path")?,
    )];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            for run in ["behind the shim", "under memtap", "under memtap once more"] {
                converse(&ports, &is_over).with_context(|| format!("the clients of memcached {run}"))?;
            }
            Ok(())
        });
        let agreed = agrees(context, &words, &environment, &Leeway::default());
        is_over.store(true, Ordering::Relaxed);
        let conversed = clients.join().unwrap_or_else(|_| bail!("the clients panicked"));
        // A server that fails leaves its clients alone: its own reason is the better one.
        agreed.and(conversed)
    })
}

/// Waits for a server, puts thousands of requests to it, and stops it.
fn converse(ports: &Path, is_over: &AtomicBool) -> Result<()> {
    eventually(LIMIT, || Ok(ports.exists() || is_over.load(Ordering::Relaxed)))?;
    ensure!(ports.exists(), "no server has listened");
    let listed = fs::read_to_string(ports)?;
    fs::remove_file(ports)?;
    let port = listed
        .lines()
        .find_map(|line| line.strip_prefix("TCP INET: ")?.parse().ok())
        .with_context(|| format!("no port in {listed:?}"))?;
    let mut clients = (0..CLIENTS)
        .map(|_| ServerClient::connect(port))
        .collect::<Result<Vec<_>>>()?;
    for round in 0..ROUNDS {
        for (at, client) in clients.iter_mut().enumerate() {
            let (key, value) = (format!("key-{at}-{round}"), "v".repeat(1 + 37 * round));
            client.ask(&format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()), "STORED")?;
            let answer = client.ask(&format!("get {key}\r\n"), "END")?;
            ensure!(answer.contains(&value), "another value for {key}");
            client.ask("stats\r\n", "END")?;
            client.ask("stats settings\r\n", "END")?;
        }
    }
    let [first, ..] = clients.as_mut_slice() else {
        bail!("no clients");
    };
    first.stream.get_mut().write_all(b"shutdown\r\n")?;
    // Until the server has closed the connection.
    while first.line()? {}
    Ok(())
}

/// One connection.
struct ServerClient {
    stream: BufReader<TcpStream>,
    said: String,
}

impl ServerClient {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut client = Self {
            stream: BufReader::new(stream),
            said: String::new(),
        };
        // How many connections wait for the worker at once decides how many blocks their queue has.
        client.ask("mn\r\n", "MN")?;
        Ok(client)
    }

    /// Sends a request and reads its answer, to the line `last`.
    fn ask(&mut self, request: &str, last: &str) -> Result<&str> {
        self.said.clear();
        self.stream.get_mut().write_all(request.as_bytes())?;
        while self.line()? {
            if self.said.lines().next_back() == Some(last) {
                return Ok(&self.said);
            }
        }
        bail!("the server has closed the connection after {:?}", self.said)
    }

    /// Reads a line; false at the end of the connection.
    fn line(&mut self) -> Result<bool> {
        Ok(self.stream.read_line(&mut self.said)? > 0)
    }
}
