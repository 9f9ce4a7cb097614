//! The kernel's records of process life: forks, execs, executable mappings, exits.
//!
//! These are the side-band records that `perf record` lives on, of a software event that never
//! fires, one ring per CPU. They name each mapped file by path and inode at the moment of the
//! mapping, so that a process that lives for a millisecond has names in the report. Layouts:
//! `enum perf_event_type` in the kernel's `include/uapi/linux/perf_event.h`.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use perf_event_open_sys::bindings::{PERF_COUNT_SW_DUMMY, PERF_SAMPLE_TIME};

use super::maps::{FileId, Mapping};
use super::perf_event;
use super::perf_ring::PerfRing;
use crate::clock::monotonic_ns;

/// Pages of each CPU's ring: 512 KiB, some five thousand mappings between two readings.
const RING_PAGES: usize = 128;

/// A record of another time than this is held back until the next reading: one that happened before
/// it may still be on its way into another CPU's ring.
const SETTLE_NS: u64 = 1_000_000;

/// An event in the life of a process, with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedProcessEvent {
    /// The time in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The process.
    pub pid: u32,
    /// The event.
    pub what: ProcessEvent,
}

/// An event in a process's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// The process was forked from another one.
    Forked {
        /// The other process.
        parent: u32,
    },
    /// The process executes another program: all its mappings have gone.
    Executed {
        /// Its new name.
        comm: String,
    },
    /// The process changed its name.
    Renamed {
        /// The name.
        comm: String,
    },
    /// The process mapped executable memory.
    Mapped(Mapping),
    /// Its first thread ended; the process has too, unless other threads live on.
    Exited,
}

/// The number of records that were lost. The kernel tells how many it could not write to a ring
/// before the next record that it can write (`PERF_RECORD_LOST`), which may be long after.
#[derive(Debug, Default)]
struct LostRecords {
    all: u64,
    counted: u64,
    is_counting: bool,
}

impl LostRecords {
    /// Takes in that so many were lost. `is_first`: the ring had been read to its end when the
    /// count began or ended, and nothing was written to it since. It has lost them before.
    fn add(&mut self, records: u64, is_first: bool) {
        self.all = self.all.saturating_add(records);
        if self.is_counting != is_first {
            self.counted = self.counted.saturating_add(records);
        }
    }
}

/// The ring of a CPU.
#[derive(Debug)]
struct CpuRing {
    ring: PerfRing,
    /// Nothing was written to it since the count of lost records began or ended.
    is_fresh: bool,
}

/// The rings of all CPUs.
#[derive(Debug)]
pub struct Sideband {
    rings: Vec<CpuRing>,
    waiting: Vec<TimedProcessEvent>,
    settled_ns: u64,
    lost: LostRecords,
}

impl Sideband {
    /// Opens a ring on each CPU.
    pub fn open() -> io::Result<Self> {
        let mut rings = Vec::new();
        for cpu in online_cpus()? {
            let ring = open_ring(cpu)?;
            rings.push(CpuRing {
                ring,
                is_fresh: false,
            });
        }
        Ok(Self {
            rings,
            waiting: Vec::new(),
            settled_ns: 0,
            lost: LostRecords::default(),
        })
    }

    /// Returns the number of records that the kernel could not write since a ring was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.all
    }

    /// Counts lost records anew from now on.
    pub fn begin_count(&mut self) {
        self.read();
        self.lost.counted = 0;
        self.lost.is_counting = true;
        for ring in &mut self.rings {
            ring.is_fresh = true;
        }
    }

    /// Counts lost records up to now.
    pub fn end_count(&mut self) {
        self.read();
        self.lost.is_counting = false;
        for ring in &mut self.rings {
            // Where nothing was written meanwhile, the next loss is told from before the count.
            ring.is_fresh = !ring.is_fresh;
        }
    }

    /// Returns the number of records that were lost while they were counted.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.lost.counted
    }

    /// Returns the time up to which all events were taken, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn settled_ns(&self) -> u64 {
        self.settled_ns
    }

    /// Takes what has happened, in the order of time. `all`: also what happened just now, which may
    /// lack an event of another CPU.
    pub fn take(&mut self, all: bool) -> Vec<TimedProcessEvent> {
        let settled = if all {
            u64::MAX
        } else {
            monotonic_ns().saturating_sub(SETTLE_NS)
        };
        self.settled_ns = settled;
        self.read();
        self.waiting.sort_by_key(|event| event.time_ns);
        let ready = self.waiting.partition_point(|event| event.time_ns <= settled);
        self.waiting.drain(..ready).collect()
    }

    /// Reads all rings to their ends.
    fn read(&mut self) {
        for CpuRing { ring, is_fresh } in &mut self.rings {
            ring.read(|kind, misc, body| {
                let is_first = std::mem::take(is_fresh);
                if kind == LOST {
                    self.lost.add(word(body, 8).unwrap_or(1), is_first);
                } else {
                    self.waiting.extend(parse(kind, misc, body));
                }
            });
        }
    }
}

/// Opens a ring on a CPU.
fn open_ring(cpu: i32) -> io::Result<PerfRing> {
    let event = perf_event::open_software(PERF_COUNT_SW_DUMMY, -1, cpu, |attributes| {
        attributes.sample_type = u64::from(PERF_SAMPLE_TIME);
        attributes.clockid = libc::CLOCK_MONOTONIC;
        attributes.set_mmap(1);
        attributes.set_mmap2(1);
        attributes.set_comm(1);
        attributes.set_comm_exec(1);
        attributes.set_task(1);
        attributes.set_sample_id_all(1);
        attributes.set_use_clockid(1);
        attributes.set_exclude_kernel(1);
    })?;
    PerfRing::map(&event, RING_PAGES)
}

const MMAP2: u32 = 10;
const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;

/// `PERF_RECORD_MISC_COMM_EXEC`
const MISC_COMM_EXEC: u16 = 1 << 13;

fn parse(kind: u32, misc: u16, body: &[u8]) -> Option<TimedProcessEvent> {
    let id = |offset| half_word(body, offset);
    // Every record ends in the time.
    let time_ns = word(body, body.len().checked_sub(8)?)?;
    let (pid, what) = match kind {
        FORK | EXIT if body.len() >= 32 => {
            // pid, ppid, tid, ptid, time
            let (pid, parent, tid) = (id(0)?, id(4)?, id(8)?);
            if pid != tid {
                return None;
            }
            (
                pid,
                if kind == FORK {
                    ProcessEvent::Forked { parent }
                } else {
                    ProcessEvent::Exited
                },
            )
        }
        COMM if body.len() >= 24 => {
            let (pid, tid) = (id(0)?, id(4)?);
            let comm = text(body.get(8..)?)?;
            let comm = String::from_utf8_lossy(comm).into_owned();
            if misc & MISC_COMM_EXEC != 0 {
                (pid, ProcessEvent::Executed { comm })
            } else if pid == tid {
                (pid, ProcessEvent::Renamed { comm })
            } else {
                return None;
            }
        }
        MMAP2 if body.len() >= 72 => {
            // pid, tid, addr, len, pgoff, maj, min, ino, ino_generation, prot, flags, filename
            let start = word(body, 8)?;
            let path = text(body.get(64..)?)?;
            let anonymous = matches!(path, b"//anon" | b"");
            let mapping = Mapping {
                start,
                end: start.checked_add(word(body, 16)?)?,
                file_offset: word(body, 24)?,
                file: FileId {
                    device: (id(32)?, id(36)?),
                    inode: word(body, 40)?,
                },
                path: PathBuf::from(std::ffi::OsStr::from_bytes(if anonymous { b"" } else { path })),
            };
            (id(0)?, ProcessEvent::Mapped(mapping))
        }
        _ => return None,
    };
    Some(TimedProcessEvent { time_ns, pid, what })
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(
        bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?,
    ))
}

fn half_word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn text(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|byte| *byte == 0).next()
}

/// The CPUs in `/sys/devices/system/cpu/online`: `0-3,8`.
fn online_cpus() -> io::Result<Vec<i32>> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let malformed = || io::Error::other(format!("the list of online CPUs is malformed: {}", online.trim()));
    let mut cpus = Vec::new();
    for part in online.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: i32 = first.parse().map_err(|_not_a_number| malformed())?;
        let last: i32 = last.parse().map_err(|_not_a_number| malformed())?;
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fork_of_a_process_is_told_from_that_of_a_thread() {
        let record = |pid: u32, tid: u32| {
            let mut body: Vec<u8> = [pid, 1, tid, 1].iter().flat_map(|id| id.to_ne_bytes()).collect();
            body.extend(5u64.to_ne_bytes());
            body.extend(7u64.to_ne_bytes());
            parse(FORK, 0, &body)
        };
        assert_eq!(
            record(10, 10),
            Some(TimedProcessEvent {
                time_ns: 7,
                pid: 10,
                what: ProcessEvent::Forked { parent: 1 }
            })
        );
        assert_eq!(record(10, 11), None);
    }

    #[test]
    fn lost_records_are_counted_while_it_is_asked() {
        let mut lost = LostRecords::default();
        lost.add(1, false);
        lost.is_counting = true;
        // Before the count, and told after it began.
        lost.add(2, true);
        lost.add(4, false);
        lost.is_counting = false;
        // During the count, and told after it ended.
        lost.add(8, true);
        lost.add(16, false);
        assert_eq!((lost.all, lost.counted), (31, 12));
    }

    #[test]
    fn short_records_are_refused() {
        for kind in [FORK, EXIT, COMM, MMAP2] {
            for len in 0..16 {
                assert_eq!(parse(kind, 0, &vec![0xff; len]), None, "kind {kind}, {len} bytes");
            }
        }
    }
}
