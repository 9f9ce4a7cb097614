//! Walks that the kernel side left to us: finished with the same rows, from a copy of the stack.
//!
//! A copy waits until the tables of all files that its stack goes through are made. Its figures are kept under a
//! provisional identity; when the walk is finished, that identity is another name of the whole stack's.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tracer_ebpf::{CopyHeader, MAX_FRAMES, StackEnd, SumKey, identity};

use super::compiled::VDSO;
use super::recorder::Recorder;
use super::tables::{OfFile, Tables};
use crate::bpf::copies::CopiedStack;
use crate::process::files::MappedFile;
use crate::process::history::ProcessHistory;
use crate::unwind::{FoundTable, PcKind, Reach, Registers, StackCopy, WalkEnd, walk};

/// Bytes of copies that may wait at once. Further stacks keep the frames that the kernel side found.
const MOST_BYTES: usize = 128 << 20;

/// Walks that are finished at once: rings are to be read in between.
const AT_ONCE: usize = 256;

/// The walks that are to be finished, and those that are.
#[derive(Debug, Default)]
pub(super) struct Copied {
    waiting: VecDeque<CopiedStack>,
    waiting_bytes: usize,
    /// What lies above the frames that the kernel side found, by the provisional identity.
    finished: HashMap<u64, Rest>,
    /// The identity of the whole stack, by the provisional one.
    names: HashMap<u64, u64>,
    given_up: u64,
}

/// The outer frames of a stack.
#[derive(Debug)]
struct Rest {
    frames: Vec<u64>,
    end: StackEnd,
    /// The frames inside of these, which the kernel side found.
    inner_len: usize,
    process: u32,
    time_ns: u64,
}

impl Copied {
    fn add(&mut self, copy: CopiedStack) {
        if self.waiting_bytes + copy.bytes.len() > MOST_BYTES {
            self.given_up += 1;
            return;
        }
        self.waiting_bytes += copy.bytes.len();
        self.waiting.push_back(copy);
    }

    fn next(&mut self) -> Option<CopiedStack> {
        let copy = self.waiting.pop_front()?;
        self.waiting_bytes -= copy.bytes.len();
        Some(copy)
    }

    /// Whether copies wait.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Walks that could not be finished.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up + self.finished.len() as u64 + self.waiting.len() as u64
    }

    /// The key of a stack by its identity.
    pub(super) fn named(&self, key: SumKey) -> SumKey {
        SumKey {
            stack: self.identity(key.stack),
            ..key
        }
    }

    /// The identity of a stack, whose figures may be kept under a provisional one.
    pub(super) fn identity(&self, stack: u64) -> u64 {
        self.names.get(&stack).copied().unwrap_or(stack)
    }
}

impl Recorder {
    /// Reads the ring of copies, and finishes what can be. `all`: without a limit of how many at once.
    pub(super) fn finish_walks(&mut self, all: bool) {
        while let Some(copy) = self.copies.as_mut().and_then(crate::bpf::copies::Copies::take) {
            self.copied.add(copy);
        }
        let Some(tables) = &mut self.tables else { return };
        let turns = self.copied.waiting.len();
        for _ in 0..if all { turns } else { turns.min(AT_ONCE) } {
            if tables.is_waiting() {
                break;
            }
            let Some(copy) = self.copied.next() else { break };
            if copy.header.time_ns > self.sideband.settled_ns() {
                // What was mapped then may still be told.
                self.copied.add(copy);
                continue;
            }
            match rest(&copy, &self.lives, tables, self.frame_pointers) {
                Ok(rest) => {
                    self.copied.finished.insert(copy.header.stack, rest);
                }
                Err(missing) => {
                    for file in &missing.all_rows {
                        tables.make_all_rows(file);
                    }
                    for file in &missing.tables {
                        if let Err(error) = tables.make(&mut self.object, file) {
                            log::warn!("{error}: some stacks may end early");
                        }
                    }
                    self.copied.add(copy);
                }
            }
        }
        self.join();
    }

    /// Finishes what is left, and waits for the tables that it takes.
    pub(super) fn finish_all_walks(&mut self) {
        loop {
            self.finish_walks(true);
            let Some(tables) = &mut self.tables else { return };
            if !self.copied.is_waiting() || !tables.is_waiting() {
                return;
            }
            if let Err(error) = tables.wait_for_one(&mut self.object) {
                log::warn!("{error}: some stacks end early");
                return;
            }
        }
    }

    /// Puts the frames together that the kernel side and we have found.
    fn join(&mut self) {
        let finished = std::mem::take(&mut self.copied.finished);
        for (provisional, rest) in finished {
            let Some(mut stack) = self.stacks.remove(&provisional) else {
                // Its record has not come yet.
                self.copied.finished.insert(provisional, rest);
                continue;
            };
            // A stack can lie in pieces, of which the copy has one: what the kernel side found by itself may be more.
            if rest.end.is_whole() || !stack.end.is_whole() {
                stack.frames.truncate(rest.inner_len);
                stack.frames.extend(rest.frames);
                stack.end = rest.end;
            }
            if stack.frames.len() > MAX_FRAMES {
                stack.frames.truncate(MAX_FRAMES);
                stack.end = StackEnd::Truncated;
            }
            let hash = stack
                .frames
                .iter()
                .fold(0, |hash, frame| identity::push(hash, *frame));
            stack.hash = identity::finish(hash, stack.end as u32);
            self.copied.names.insert(provisional, stack.hash);
            self.seen_in.remove(&(rest.process, provisional));
            self.seen_in
                .entry((rest.process, stack.hash))
                .or_insert(rest.time_ns);
            self.stacks.entry(stack.hash).or_insert(stack);
        }
    }
}

/// What must be made before a walk can be finished.
#[derive(Debug, Default)]
struct Missing {
    tables: Vec<Arc<MappedFile>>,
    /// Files whose code a signal has interrupted, which have tables of call sites.
    all_rows: Vec<Arc<MappedFile>>,
}

/// Walks on from where the kernel side stopped. The error: what is to be made first.
fn rest(
    copy: &CopiedStack,
    lives: &ProcessHistory,
    tables: &Tables,
    frame_pointers: bool,
) -> Result<Rest, Missing> {
    let header = &copy.header;
    let has = |flag| header.flags & flag != 0;
    let image = lives.image(header.tgid, header.time_ns);
    let missing: RefCell<Missing> = RefCell::default();
    let find = |address, kind| {
        let Some(place) = image.and_then(|image| image.place(address, header.time_ns)) else {
            return FoundTable::Unmapped;
        };
        let found = match &place.file {
            Some(file) => tables.of_file(file),
            None if place.path.as_os_str() == VDSO => tables.of_vdso(),
            None => OfFile::Without,
        };
        match found {
            OfFile::OfCallSites(_) if kind == PcKind::Exact => {
                missing.borrow_mut().all_rows.extend(place.file);
                FoundTable::Unmapped
            }
            OfFile::Table(table) | OfFile::OfCallSites(table) => match table.bias(0, place.file_offset) {
                Some(bias) => FoundTable::In {
                    table,
                    relative: 0u64.wrapping_sub(bias),
                },
                None => FoundTable::NoTable,
            },
            OfFile::Without => FoundTable::NoTable,
            OfFile::Missing => {
                missing.borrow_mut().tables.extend(place.file);
                FoundTable::Unmapped
            }
        }
    };
    let registers = Registers {
        pc: header.instruction,
        pc_kind: if has(CopyHeader::IS_RETURN) {
            PcKind::ReturnAddress
        } else {
            PcKind::Exact
        },
        sp: header.stack_pointer,
        bp: has(CopyHeader::FRAME_POINTER_KNOWN).then_some(header.frame_pointer),
    };
    let stack = StackCopy {
        base: header.base,
        bytes: &copy.bytes,
    };
    let mut frames = Vec::new();
    let reach = Reach {
        max_frames: MAX_FRAMES + 1,
        frame_pointers,
    };
    let walked = walk(registers, &stack, find, &mut frames, reach);
    let missing = missing.into_inner();
    if !missing.tables.is_empty() || !missing.all_rows.is_empty() {
        return Err(missing);
    }
    let through_signal = has(CopyHeader::THROUGH_SIGNAL) || walked.is_inexact;
    Ok(Rest {
        frames,
        end: end(walked.end, through_signal),
        inner_len: header.frames_len as usize,
        process: header.process,
        time_ns: header.time_ns,
    })
}

fn end(end: WalkEnd, through_signal: bool) -> StackEnd {
    match end {
        WalkEnd::Complete | WalkEnd::ZeroReturn if through_signal => StackEnd::Signal,
        WalkEnd::Complete | WalkEnd::ZeroReturn => StackEnd::Complete,
        WalkEnd::Truncated => StackEnd::Truncated,
        WalkEnd::Unmapped => StackEnd::NoMapping,
        WalkEnd::NoTable => StackEnd::NoTable,
        WalkEnd::NoRow => StackEnd::NoRow,
        WalkEnd::Unsupported => StackEnd::Unsupported,
        WalkEnd::RbpLost => StackEnd::RbpLost,
        WalkEnd::ReadFault => StackEnd::ReadFault,
        WalkEnd::NoProgress => StackEnd::NoProgress,
    }
}
