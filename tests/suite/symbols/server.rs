//! A server of debug information on this machine, which misbehaves as it is told to.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// The server's answer to a request.
#[derive(Clone)]
pub(crate) enum ServerAnswer {
    /// Sends this file.
    File(Vec<u8>),
    /// Has nothing.
    NotFound,
    /// Fails.
    Failure,
    /// Takes the request, and says nothing.
    Silence,
    /// Says that it sends so much, sends half of this, and hangs up.
    Half(Vec<u8>),
}

/// A server; it goes on until the suite ends.
pub(crate) struct DebuginfodServer {
    /// Its address.
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl DebuginfodServer {
    /// Starts one that knows this build alone; of others it has nothing.
    pub(crate) fn start(build_id: &str, answer: ServerAnswer) -> Result<Self> {
        let known = format!("/buildid/{build_id}/debuginfo");
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let url = format!("http://{}/", listener.local_addr()?);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (known, answer, asked) = (known.clone(), answer.clone(), Arc::clone(&asked));
                std::thread::spawn(move || {
                    if let Err(error) = serve(stream, &known, &answer, &asked) {
                        memtap_tests::journal::note(&format!("the server failed: {error}"));
                    }
                });
            }
        });
        Ok(Self { url, requests })
    }

    /// The paths that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(
    mut stream: TcpStream,
    known: &str,
    answer: &ServerAnswer,
    asked: &Mutex<Vec<String>>,
) -> Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = stream.read(&mut piece)?;
        if len == 0 {
            return Ok(());
        }
        request.extend(&piece[..len]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = if path == known {
        answer
    } else {
        &ServerAnswer::NotFound
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    let head = |status: &str, len: usize| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n").into_bytes()
    };
    match answer {
        ServerAnswer::File(bytes) => {
            stream.write_all(&head("200 OK", bytes.len()))?;
            stream.write_all(bytes)?;
        }
        ServerAnswer::NotFound => stream.write_all(&head("404 Not Found", 0))?,
        ServerAnswer::Failure => stream.write_all(&head("500 Internal DebuginfodServer Error", 0))?,
        ServerAnswer::Silence => std::thread::sleep(Duration::from_secs(30)),
        ServerAnswer::Half(bytes) => {
            stream.write_all(&head("200 OK", bytes.len()))?;
            stream.write_all(&bytes[..bytes.len() / 2])?;
        }
    }
    Ok(())
}
