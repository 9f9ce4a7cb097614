//! The ring: new stacks and new processes.

use tracer_ebpf::{
    CountsRecord, FileKey, FileRecord, ProcessRecord, ProcessStopRecord, RecordKind, StackEnd,
    StackRecordHeader,
};
use zerocopy::FromBytes as _;

use super::counters::Counted;
use super::error::BpfError;
use super::object::Object;
use super::ring::Ring;

/// One record of the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingRecord {
    /// A stack, met for the first time.
    Stack(RecordedStack),
    /// A process image, met for the first time.
    Process(NewProcess),
    /// A file with code that has no unwind table yet.
    File(NewFile),
    /// What a CPU has counted of a process, and counts anew.
    Counts(Counted),
    /// A process that has no probes of its own yet.
    Unprobed(ReportedProcess),
    /// A process of a tree that will see when a child of it is stopped.
    StopWatcher(ReportedProcess),
}

/// A process that is to be seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedProcess {
    /// Its id.
    pub tgid: u32,
    /// It is stopped until that is done.
    pub is_stopped: bool,
}

/// A stack's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedStack {
    /// Its identity.
    pub hash: u64,
    /// The number of the process that it was met in.
    pub process: u32,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// How the walk ended.
    pub end: StackEnd,
    /// Code addresses, innermost first.
    pub frames: Vec<u64>,
}

/// A process image that the kernel side met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProcess {
    /// The process.
    pub tgid: u32,
    /// Its number in keys; [`PROCESS_UNKNOWN`](tracer_ebpf::PROCESS_UNKNOWN) where it is followed
    /// no more.
    pub number: u32,
    /// The number of the image that it came from, or 0.
    pub parent: u32,
    /// Its name when it was met.
    pub comm: String,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Hits of the image that it takes the place of, in the same process.
    pub hits_before: u64,
    /// Its number in its own pid namespace, where that is known.
    pub inner_pid: Option<u32>,
}

/// A file with code, met in a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// A process that has it mapped.
    pub tgid: u32,
    /// First address of the mapping.
    pub start: u64,
    /// One past its last address.
    pub end: u64,
    /// The file, as the kernel side knows it.
    pub key: FileKey,
}

/// The user side of the ring.
#[expect(missing_debug_implementations, reason = "aya's ring has none")]
pub struct Records {
    ring: Ring,
}

impl Records {
    /// Takes the ring; it can be taken once, and inside an event loop.
    pub fn take_ring(object: &mut Object) -> Result<Self, BpfError> {
        let ring = Ring::take(object, "RECORDS")?;
        Ok(Self { ring })
    }

    /// Waits until the kernel side calls: for a record that cannot wait, or a ring that fills up.
    pub async fn urgent(&mut self) -> std::io::Result<()> {
        self.ring.called().await
    }

    /// Takes the next record, if there is one. A record that cannot be read is skipped with a
    /// message: both sides were built from the same definitions, so there is none.
    pub fn take(&mut self) -> Option<RingRecord> {
        loop {
            let item = self.ring.next()?;
            match parse(&item) {
                Some(record) => return Some(record),
                None => log::error!("a record of {} bytes cannot be read", item.len()),
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<RingRecord> {
    let (kind, _) = u32::read_from_prefix(bytes).ok()?;
    if kind == RecordKind::Stack as u32 {
        let (header, frames) = StackRecordHeader::read_from_prefix(bytes).ok()?;
        let frames: Vec<u64> = frames
            .as_chunks::<8>()
            .0
            .iter()
            .map(|frame| u64::from_ne_bytes(*frame))
            .collect();
        if frames.len() != usize::from(header.frames_len) {
            return None;
        }
        return Some(RingRecord::Stack(RecordedStack {
            end: StackEnd::from_number(u32::from(header.end))?,
            hash: header.hash,
            time_ns: header.time_ns,
            process: header.process,
            frames,
        }));
    }
    if kind == RecordKind::Process as u32 {
        let record = ProcessRecord::read_from_bytes(bytes).ok()?;
        let comm = record.comm.split(|byte| *byte == 0).next()?;
        return Some(RingRecord::Process(NewProcess {
            tgid: record.tgid,
            number: record.number,
            parent: record.parent,
            comm: String::from_utf8_lossy(comm).into_owned(),
            time_ns: record.time_ns,
            hits_before: record.hits_before,
            inner_pid: (record.inner_pid != 0).then_some(record.inner_pid),
        }));
    }
    if kind == RecordKind::File as u32 {
        let record = FileRecord::read_from_bytes(bytes).ok()?;
        return Some(RingRecord::File(NewFile {
            tgid: record.tgid,
            start: record.start,
            end: record.end,
            key: record.key,
        }));
    }
    if kind == RecordKind::Counts as u32 {
        let record = CountsRecord::read_from_bytes(bytes).ok()?;
        return Some(RingRecord::Counts(Counted {
            process: record.process,
            hits: u64::from(record.hits),
            frees: u64::from(record.frees),
        }));
    }
    let process = || {
        let record = ProcessStopRecord::read_from_bytes(bytes).ok()?;
        Some(ReportedProcess {
            tgid: record.tgid,
            is_stopped: record.is_stopped != 0,
        })
    };
    if kind == RecordKind::Unprobed as u32 {
        return process().map(RingRecord::Unprobed);
    }
    if kind == RecordKind::StopWatcher as u32 {
        return process().map(RingRecord::StopWatcher);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack_bytes(frames_len: u16, frames: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((RecordKind::Stack as u32).to_ne_bytes());
        bytes.extend(frames_len.to_ne_bytes());
        bytes.extend(2u16.to_ne_bytes());
        bytes.extend(77u64.to_ne_bytes());
        bytes.extend(99u64.to_ne_bytes());
        bytes.extend(5u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(frames.iter().flat_map(|frame| frame.to_ne_bytes()));
        bytes
    }

    #[test]
    fn stack_is_read_as_it_was_written() {
        let record = parse(&stack_bytes(2, &[1, 2]));
        let expected = RecordedStack {
            hash: 77,
            process: 5,
            time_ns: 99,
            end: StackEnd::Truncated,
            frames: vec![1, 2],
        };
        assert_eq!(record, Some(RingRecord::Stack(expected)));
    }

    #[test]
    fn file_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        bytes.extend((RecordKind::File as u32).to_ne_bytes());
        bytes.extend(5u32.to_ne_bytes());
        for word in [0x1000, 0x3000, 77, 4096] {
            bytes.extend(u64::to_ne_bytes(word));
        }
        bytes.extend((-3i64).to_ne_bytes());
        let expected = NewFile {
            tgid: 5,
            start: 0x1000,
            end: 0x3000,
            key: FileKey {
                inode: 77,
                size_bytes: 4096,
                modified_s: -3,
            },
        };
        assert_eq!(parse(&bytes), Some(RingRecord::File(expected)));
        assert_eq!(parse(&bytes[..40]), None);
    }

    #[test]
    fn counts_are_read_as_they_were_written() {
        let words = [RecordKind::Counts as u32, 7, 8, 9];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let expected = Counted {
            process: 7,
            hits: 8,
            frees: 9,
        };
        assert_eq!(parse(&bytes), Some(RingRecord::Counts(expected)));
        assert_eq!(parse(&bytes[..12]), None);
    }

    #[test]
    fn processes_without_probes_are_read_as_they_were_written() {
        let words = [RecordKind::Unprobed as u32, 7, 1, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let expected = ReportedProcess {
            tgid: 7,
            is_stopped: true,
        };
        assert_eq!(parse(&bytes), Some(RingRecord::Unprobed(expected)));
        assert_eq!(parse(&bytes[..8]), None);
    }

    #[test]
    fn processes_that_see_stops_are_read_as_they_were_written() {
        let words = [RecordKind::StopWatcher as u32, 7, 0, 0];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let expected = ReportedProcess {
            tgid: 7,
            is_stopped: false,
        };
        assert_eq!(parse(&bytes), Some(RingRecord::StopWatcher(expected)));
        assert_eq!(parse(&bytes[..8]), None);
    }

    #[test]
    fn stack_of_another_length_than_it_says_is_refused() {
        assert_eq!(parse(&stack_bytes(3, &[1, 2])), None);
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[9, 0, 0, 0]), None);
    }
}
