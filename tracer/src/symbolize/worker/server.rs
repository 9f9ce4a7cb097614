//! The process's own side: threads that take requests from the socket and answer them.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use super::elf_names;
use super::name_table::NameTable;
use super::protocol::{self, Names, ReaderReply, ReaderRequest, ReaderTask};
use super::sandbox;
use crate::symbolize::perf_map;
use crate::symbolize::reader::FromStart;

/// Runs the process: standard input is the socket.
pub(crate) fn run() -> Result<()> {
    sandbox::enter()?;
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let socket = UnixStream::from(socket.context("there is no socket")?);
    // What panics on a file says so in its answer.
    std::panic::set_hook(Box::new(|_| {}));
    serve(&socket, sandbox::memory_limit_bytes() / 2);
    Ok(())
}

/// Answers requests until the socket is closed. `unpacked_bytes`: the most that compressed sections
/// of a file may unpack to.
pub(super) fn serve(socket: &UnixStream, unpacked_bytes: u64) {
    let receiving = Mutex::new(());
    let sending = Mutex::new(());
    let reply = |reply: &ReaderReply| {
        let _one = sending.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::send(socket, reply, &[])
    };
    let next = || {
        let _one = receiving.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::receive::<ReaderRequest>(socket)
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                // A message that makes no sense, and a socket that is closed, are both the end.
                while let Ok(Some((ReaderRequest { id, task }, files))) = next() {
                    let mut notes = Vec::new();
                    let names = answer(task, files, unpacked_bytes, &mut notes);
                    let notes = notes.into_iter().map(|(is_warning, text)| ReaderReply::Note {
                        id,
                        is_warning,
                        text,
                    });
                    for message in notes.chain([ReaderReply::Done { id, names }]) {
                        if reply(&message).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// The number of requests that are answered at a time.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Answers a request. A file that makes the reader panic has no names.
fn answer(
    task: ReaderTask,
    files: Vec<OwnedFd>,
    unpacked_bytes: u64,
    notes: &mut Vec<(bool, String)>,
) -> Names {
    let mut files = files.into_iter().map(File::from);
    let Some(file) = files.next() else {
        return Names::default();
    };
    let mut table = NameTable::of_len(task.addresses().len());
    let read = std::panic::AssertUnwindSafe(|| match task {
        ReaderTask::File(task) => {
            elf_names::read(&task, file, files.next(), unpacked_bytes, &mut table, notes);
        }
        ReaderTask::Map(task) => match perf_map::names(FromStart::new(&file), &task.addresses) {
            Ok(found) => {
                for (at, address) in task.addresses.iter().enumerate() {
                    let name = found.get(address).map(|name| (&**name, None));
                    table.set(at, name.into_iter());
                }
            }
            Err(error) => notes.push((false, format!("it cannot be read: {error}"))),
        },
    });
    if std::panic::catch_unwind(read).is_err() {
        notes.push((true, "its names cannot be read".to_owned()));
    }
    table.into_names()
}
