//! Stack walks by unwind tables: the tables of mapped files, and the walks that the kernel side
//! left to user space, which are finished with the same rows from a copy of the stack.

mod compiler;
pub(super) mod table_set;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use tracer_ebpf::{CopyHeader, FileKey, MAX_FRAMES, StackEnd};

pub(crate) use self::compiler::TableBatch;
use self::compiler::VDSO;
use self::table_set::{TableLookup, UnwindTables};
use super::process_table::ProcessTable;
use super::stack_table::{OuterFrames, StackTable};
use crate::bpf::Object;
use crate::bpf::copies::{CopiedStack, Copies};
use crate::bpf::load::BpfError;
use crate::bpf::records::NewFile;
use crate::process::files::MappedFile;
use crate::process::history::ProcessHistory;
use crate::process::maps;
use crate::profile::session::TableUsage;
use crate::unwind::{Capacity, FoundTable, PcKind, Reach, Registers, StackCopy, WalkEnd, walk};

/// The unwind tables and the deferred walks of a recording.
pub(super) struct Unwinding {
    tables: UnwindTables,
    walks: DeferredWalks,
}

impl Unwinding {
    /// Takes the ring of copies of a loaded object. `frame_pointers`: code without tables is walked
    /// by frame pointers.
    pub(super) fn new(
        object: &mut Object,
        capacity: Capacity,
        frame_pointers: bool,
    ) -> Result<Self, BpfError> {
        Ok(Self {
            tables: UnwindTables::new(object, capacity)?,
            walks: DeferredWalks::new(Copies::take_ring(object)?, frame_pointers),
        })
    }

    /// Places the tables of a batch and of the vDSO, and waits for them. Must come first.
    pub(super) fn place_batch(&mut self, object: &mut Object, batch: &TableBatch) -> Result<(), BpfError> {
        self.tables.place_batch(object, batch)
    }

    /// Waits until the ring of copies fills up.
    pub(super) async fn urgent(&mut self) -> std::io::Result<()> {
        self.walks.urgent().await
    }

    /// Places the tables that are ready.
    pub(super) fn place_compiled(&mut self, object: &mut Object) {
        if let Err(error) = self.tables.place_compiled(object) {
            log::warn!("{error}: some stacks may end early");
        }
    }

    /// Begins the table of a file that a target has mapped, before any stack goes through it.
    pub(super) fn on_file_mapped(&mut self, object: &mut Object, file: &Arc<MappedFile>) {
        if let Err(error) = self.tables.compile(object, Some(Arc::clone(file)), file.key) {
            log::warn!("{error}: some stacks may end early");
        }
    }

    /// Begins the table of a file that the kernel side has met in a stack.
    pub(super) fn on_file_met(&mut self, object: &mut Object, processes: &mut ProcessTable, new: &NewFile) {
        let mappings = maps::executable_mappings(new.tgid).unwrap_or_default();
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.start <= new.start && new.start < mapping.end);
        let files = processes.history_mut().files();
        let file = mapping.and_then(|mapping| files.of_mapping(new.tgid, mapping));
        if let Some(file) = &file {
            log::debug!(
                "{}: met as {:?}, mapped as {:?}",
                file.path.display(),
                new.key,
                file.key
            );
        }
        if let Err(error) = self.tables.compile(object, file, new.key) {
            log::warn!("{error}: some stacks may end early");
        }
    }

    /// Returns true if tables are being compiled.
    pub(super) fn is_compiling(&self) -> bool {
        self.tables.is_compiling()
    }

    /// Finishes deferred walks whose tables are there. `at_end`: finishes all, and waits for the
    /// tables that they need. `settled_ns`: the time up to which mappings are known.
    pub(super) fn finish_walks(
        &mut self,
        object: &mut Object,
        processes: &ProcessTable,
        stacks: &mut StackTable,
        settled_ns: u64,
        at_end: bool,
    ) {
        let history = processes.history();
        loop {
            self.walks
                .finish(object, &mut self.tables, history, stacks, settled_ns, at_end);
            if !at_end || !self.walks.is_waiting() || !self.tables.is_compiling() {
                return;
            }
            if let Err(error) = self.tables.wait_for_one(object) {
                log::warn!("{error}: some stacks end early");
                return;
            }
        }
    }

    /// Reclaims the room of tables whose last process ended a while ago.
    pub(super) fn reclaim(&mut self, object: &mut Object, processes: &ProcessTable) {
        if let Err(error) = self.tables.reclaim(object, processes.history().present_files()) {
            log::warn!("{error}: the unwind tables of processes that have ended stay");
        }
    }

    /// Returns true if a place in a file is the one that signal handlers return to.
    pub(super) fn is_signal_frame(&self, file: &MappedFile, offset: u64) -> bool {
        self.tables.is_signal_frame(file, offset)
    }

    /// Deferred walks that were not finished.
    pub(super) fn unfinished(&self) -> u64 {
        self.walks.unfinished()
    }

    /// The tables in figures.
    pub(super) fn usage(&self) -> TableUsage {
        self.tables.usage()
    }
}

/// Bytes of copies that may wait at once. Further stacks keep the frames that the kernel side
/// found.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// Walks that are finished in one go: the rings are read in between.
const MAX_AT_ONCE: usize = 256;

/// The ring of copies, and the copies that wait: until the tables of all files that their stacks go
/// through are there.
struct DeferredWalks {
    ring: Copies,
    waiting: VecDeque<CopiedStack>,
    waiting_bytes: usize,
    dropped: u64,
    /// Code without tables is walked by frame pointers.
    frame_pointers: bool,
}

impl DeferredWalks {
    /// Returns a queue without walks.
    fn new(ring: Copies, frame_pointers: bool) -> Self {
        Self {
            ring,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dropped: 0,
            frame_pointers,
        }
    }

    /// Waits until the ring of copies fills up.
    async fn urgent(&mut self) -> std::io::Result<()> {
        self.ring.urgent().await
    }

    /// Returns true if copies wait.
    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Walks that were not finished.
    fn unfinished(&self) -> u64 {
        self.dropped + self.waiting.len() as u64
    }

    fn push(&mut self, copy: CopiedStack) {
        if self.waiting_bytes + copy.bytes.len() > MAX_WAITING_BYTES {
            self.dropped += 1;
            return;
        }
        self.waiting_bytes += copy.bytes.len();
        self.waiting.push_back(copy);
    }

    fn pop(&mut self) -> Option<CopiedStack> {
        let copy = self.waiting.pop_front()?;
        self.waiting_bytes -= copy.bytes.len();
        Some(copy)
    }

    /// Reads the ring, and finishes the walks that can be, all or some at once. Copies that were
    /// made after `settled_ns` wait: the mappings of that time may not be known yet.
    fn finish(
        &mut self,
        object: &mut Object,
        tables: &mut UnwindTables,
        history: &ProcessHistory,
        stacks: &mut StackTable,
        settled_ns: u64,
        all: bool,
    ) {
        while let Some(copy) = self.ring.take() {
            self.push(copy);
        }
        let turns = self.waiting.len();
        for _ in 0..if all { turns } else { turns.min(MAX_AT_ONCE) } {
            if tables.is_compiling() {
                break;
            }
            let Some(copy) = self.pop() else { break };
            if copy.header.time_ns > settled_ns {
                self.push(copy);
                continue;
            }
            match outer_frames(&copy, history, tables, self.frame_pointers) {
                Ok(outer) => stacks.add_outer_frames(copy.header.stack, outer),
                Err(missing) => {
                    for file in &missing.all_rows {
                        tables.compile_all_rows(file);
                    }
                    for file in missing.tables {
                        let key = file.key;
                        if let Err(error) = tables.compile(object, Some(file), key) {
                            log::warn!("{error}: some stacks may end early");
                        }
                    }
                    self.push(copy);
                }
            }
        }
        stacks.join();
    }
}

/// Tables that a walk needs to be finished.
#[derive(Debug, Default)]
struct MissingTables {
    tables: Vec<Arc<MappedFile>>,
    /// Files whose code a signal has interrupted, which have tables of call sites.
    all_rows: Vec<Arc<MappedFile>>,
}

/// Continues a walk from where the kernel side stopped, unless tables are missing.
fn outer_frames(
    copy: &CopiedStack,
    history: &ProcessHistory,
    tables: &UnwindTables,
    frame_pointers: bool,
) -> Result<OuterFrames, MissingTables> {
    let header = &copy.header;
    let has = |flag| header.flags & flag != 0;
    let image = history.image(header.tgid, header.time_ns);
    let missing: RefCell<MissingTables> = RefCell::default();
    let find = |address, kind| {
        let Some(place) = image.and_then(|image| image.place(address, header.time_ns)) else {
            return FoundTable::Unmapped;
        };
        let found = match &place.file {
            Some(file) => tables.lookup(file.key),
            None if place.path.as_os_str() == VDSO => tables.lookup(FileKey::VDSO),
            None => TableLookup::Without,
        };
        match found {
            TableLookup::CallSites(_) if kind == PcKind::Exact => {
                missing.borrow_mut().all_rows.extend(place.file);
                FoundTable::Unmapped
            }
            TableLookup::Table(table) | TableLookup::CallSites(table) => {
                match table.bias(0, place.file_offset) {
                    Some(bias) => FoundTable::In {
                        table,
                        relative: 0u64.wrapping_sub(bias),
                    },
                    None => FoundTable::NoTable,
                }
            }
            TableLookup::Without => FoundTable::NoTable,
            TableLookup::Missing => {
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
    Ok(OuterFrames {
        frames,
        end: stack_end(walked.end, through_signal),
        inner_len: header.frames_len as usize,
        process: header.process,
        time_ns: header.time_ns,
    })
}

fn stack_end(end: WalkEnd, through_signal: bool) -> StackEnd {
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
