//! The requests to the process that reads names, also when it ends early.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process::ReaderProcess;
use super::protocol::{Names, ReaderReply, ReaderRequest, ReaderTask};
use super::server;

/// The time for a small file, and the bytes of a large one that get a second each. Machines that
/// are emulated take thirty times as long as others.
const TASK_LIMIT: Duration = Duration::from_mins(1);
const BYTES_PER_SECOND: u64 = 4 << 20;

/// Processes that may end early before the remaining files are left out.
const MAX_ENDS: u32 = 16;

/// Bytes of names that are kept at most.
const MAX_NAME_BYTES: usize = 256 << 20;

/// A file to be read.
#[derive(Debug)]
pub(in crate::symbolize) struct NameReading<'a> {
    /// The purpose.
    pub(in crate::symbolize) task: ReaderTask,
    /// The file.
    pub(in crate::symbolize) file: &'a File,
    /// Its debug information, where it is in another one.
    pub(in crate::symbolize) debug: Option<&'a File>,
    /// Its path, for messages.
    pub(in crate::symbolize) shown: &'a Path,
    /// Its size.
    pub(in crate::symbolize) size_bytes: u64,
}

/// The reader of names: one process for the recording, started when it is needed, and again when it
/// has ended early.
#[derive(Debug, Default)]
pub(in crate::symbolize) struct NameReader {
    process: Option<ReaderProcess>,
    /// Processes that have ended early.
    ends: u32,
    /// Bytes of names that were read.
    name_bytes: usize,
}

/// An early end of the process.
struct EarlyEnd {
    /// The files that it was reading.
    reading: Vec<usize>,
    /// Those of them that took too long.
    overdue: Vec<usize>,
    why: String,
}

impl NameReader {
    /// Reads files, several at a time, the largest first. Those that cannot be read have no names.
    pub(in crate::symbolize) fn read(&mut self, readings: &[NameReading<'_>]) -> Vec<Option<Names>> {
        let mut names: Vec<Option<Names>> = readings.iter().map(|_| None).collect();
        let mut waiting: Vec<usize> = (0..readings.len()).collect();
        waiting.sort_by_key(|at| weight(&readings[*at]));
        // Files of which one has ended the process: each is read alone.
        let mut suspects: Vec<usize> = Vec::new();
        while !(waiting.is_empty() && suspects.is_empty()) {
            if self.ends >= MAX_ENDS {
                let left = waiting.len() + suspects.len();
                log::warn!(
                    "{left} more files are not read for names: readers of others have ended {MAX_ENDS} times"
                );
                break;
            }
            let outcome = match suspects.pop() {
                Some(suspect) => self.read_queue(readings, &mut vec![suspect], 1, &mut names),
                None => self.read_queue(readings, &mut waiting, server::threads(), &mut names),
            };
            let Err(end) = outcome else { continue };
            self.ends += 1;
            let EarlyEnd {
                reading,
                overdue,
                why,
            } = end;
            let culprits = match (&*reading, &*overdue) {
                ([only], _) => vec![*only],
                _ => overdue,
            };
            for at in &culprits {
                log::warn!(
                    "{}: its functions have no names: {why}",
                    readings[*at].shown.display()
                );
            }
            suspects.extend(reading.into_iter().filter(|at| !culprits.contains(at)));
        }
        names
    }

    /// Reads the files of a queue, so many at a time.
    fn read_queue(
        &mut self,
        readings: &[NameReading<'_>],
        queue: &mut Vec<usize>,
        at_once: usize,
        names: &mut [Option<Names>],
    ) -> Result<(), EarlyEnd> {
        let mut sent: Vec<(usize, Instant)> = Vec::new();
        loop {
            let outcome = self.exchange(readings, queue, at_once, &mut sent);
            let (at, found) = match outcome {
                Ok(Some(done)) => done,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.end(&error, &sent)),
            };
            sent.retain(|(other, _)| *other != at);
            self.name_bytes += found.strings.iter().map(String::len).sum::<usize>();
            if self.name_bytes <= MAX_NAME_BYTES {
                names[at] = Some(found);
            } else {
                log::warn!(
                    "{}: its functions have no names: those of the others take {} MiB",
                    readings[at].shown.display(),
                    MAX_NAME_BYTES >> 20
                );
            }
        }
    }

    /// Sends what can be sent, and waits for an answer; nothing where none is to come.
    fn exchange(
        &mut self,
        readings: &[NameReading<'_>],
        queue: &mut Vec<usize>,
        at_once: usize,
        sent: &mut Vec<(usize, Instant)>,
    ) -> io::Result<Option<(usize, Names)>> {
        if sent.is_empty() && queue.is_empty() {
            return Ok(None);
        }
        let process = match self.process.take() {
            Some(process) => process,
            None => ReaderProcess::start()?,
        };
        let process = self.process.insert(process);
        while sent.len() < at_once
            && let Some(at) = queue.pop()
        {
            let reading = &readings[at];
            sent.push((at, Instant::now() + time_limit(reading)));
            let files = [Some(reading.file), reading.debug];
            let files: Vec<_> = files.into_iter().flatten().map(File::as_fd).collect();
            let task = reading.task.clone();
            process.send(&ReaderRequest { id: at, task }, &files)?;
        }
        loop {
            let deadline = sent.iter().map(|(_, deadline)| *deadline).min();
            let reply = process.receive(deadline.unwrap_or_else(Instant::now))?;
            let reply = reply.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (ReaderReply::Note { id, .. } | ReaderReply::Done { id, .. }) = reply;
            if !sent.iter().any(|(at, _)| *at == id) {
                return Err(io::Error::other("an answer to nothing"));
            }
            let shown = readings[id].shown.display();
            match reply {
                ReaderReply::Note {
                    is_warning: true,
                    text,
                    ..
                } => log::warn!("{shown}: {text}"),
                ReaderReply::Note { text, .. } => log::debug!("{shown}: {text}"),
                ReaderReply::Done { names, .. } if names.is_sound(readings[id].task.addresses().len()) => {
                    return Ok(Some((id, names)));
                }
                ReaderReply::Done { .. } => return Err(io::Error::other("an answer that makes no sense")),
            }
        }
    }

    /// Ends the process after an error.
    fn end(&mut self, error: &io::Error, sent: &[(usize, Instant)]) -> EarlyEnd {
        let now = Instant::now();
        let is_late = error.kind() == io::ErrorKind::WouldBlock;
        let overdue = sent.iter().filter(|(_, deadline)| is_late && *deadline <= now);
        let overdue: Vec<usize> = overdue.map(|(at, _)| *at).collect();
        let ended = self.process.take().map(ReaderProcess::end);
        if sent.is_empty() {
            // It cannot be started, and will not be the next time.
            self.ends = MAX_ENDS;
        }
        EarlyEnd {
            reading: sent.iter().map(|(at, _)| *at).collect(),
            why: match (overdue.first(), ended, error.kind()) {
                (Some(_), ..) => "reading it took too long".to_owned(),
                (
                    None,
                    Some(ended),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset,
                ) => ended,
                (None, ..) => format!("failed to read it in a process of its own: {error}"),
            },
            overdue,
        }
    }
}

/// The effort for a file.
fn weight(reading: &NameReading<'_>) -> u64 {
    reading.size_bytes + 1024 * reading.task.addresses().len() as u64
}

/// The time that a file may take.
fn time_limit(reading: &NameReading<'_>) -> Duration {
    TASK_LIMIT + Duration::from_secs(reading.size_bytes / BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::worker::protocol::MapTask;

    fn map(text: &str) -> File {
        let file = tempfile::tempfile().expect("room");
        std::io::Write::write_all(&mut &file, text.as_bytes()).expect("room");
        file
    }

    #[test]
    fn files_are_read_in_one_process() {
        let files = [map("10 8 one\n"), map("20 8 two\n"), map("no map")];
        let readings = files.iter().map(|file| NameReading {
            task: ReaderTask::Map(MapTask {
                addresses: vec![0x10, 0x20],
            }),
            file,
            debug: None,
            shown: Path::new("x.map"),
            size_bytes: 10,
        });
        let readings: Vec<_> = readings.collect();
        let mut reader = NameReader::default();
        let names = reader.read(&readings);
        let name = |file: usize, at: usize| {
            let names = names[file].as_ref().expect("read");
            let frame = names.frames[at].first()?;
            Some(names.strings[frame.name as usize].as_str())
        };
        assert_eq!((name(0, 0), name(0, 1)), (Some("one"), None));
        assert_eq!((name(1, 0), name(1, 1)), (None, Some("two")));
        assert_eq!((name(2, 0), name(2, 1)), (None, None));
        assert_eq!(reader.ends, 0);
    }
}
