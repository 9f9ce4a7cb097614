//! The unwind tables of the files that targets map: compiled on threads of their own, placed in the kernel side's
//! arrays, shared by all processes that map the same file.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracer_ebpf::unwind::MAPPED_PAGE_BYTES;
use tracer_ebpf::{FileKey, FileTable, MAX_SEGMENTS, Segment};

use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::bpf::tables::{NO_SEGMENT, TableMaps};
use crate::report::session::Tables as Usage;
use crate::target::files::MappedFile;
use crate::target::maps;
use crate::unwind::layout::cfa;
use crate::unwind::{self, Arena, ArenaFull, Capacity, Inserted, Options, Placement, Rows, Table};

/// What is known of a file.
#[derive(Debug)]
enum State {
    /// Being compiled.
    Awaited,
    /// In the arrays.
    Placed {
        placement: Placement,
        /// For the walks that are finished here.
        table: Box<Table>,
        more: More,
        use_: Use,
    },
    /// There is none, or no room for it.
    Without,
}

/// Whether a table of call sites can become one of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    /// It can, should a signal ever interrupt the file's code.
    CanBeMade,
    /// They are being made.
    Awaited,
    /// It has them all, or there is no room for them.
    No,
}

/// Whether a file is mapped by a process that we know.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// Not yet: a program that is going to be executed. Or always: the vDSO.
    Not,
    /// By a running process, when it was last looked.
    Now,
    /// Since this time by none that is left.
    Over(Instant),
}

/// What there is of a file's table.
#[derive(Debug, Clone, Copy)]
pub(super) enum OfFile<'a> {
    /// It is made.
    Table(&'a Table),
    /// One of call sites is made; of all rows there can be one.
    OfCallSites(&'a Table),
    /// There is none, or no room for it.
    Without,
    /// It was not made, or is being made.
    Missing,
}

/// How long a table stays after the last process that had its file mapped: programs are often run again.
const LINGER: Duration = Duration::from_secs(5);

/// How often a file may be met that cannot be found, until it has to do without a table.
const MOST_UNTOLD: u32 = 16;

/// A compiled file.
struct Compiled {
    path: PathBuf,
    key: FileKey,
    table: Result<Table, String>,
    took: Duration,
}

/// The tables of all files.
pub(super) struct Tables {
    maps: TableMaps,
    arena: Arena,
    files: HashMap<FileKey, State>,
    /// How often a file was met that could not be found.
    untold: HashMap<FileKey, u32>,
    sender: Sender<Compiled>,
    receiver: Receiver<Compiled>,
    awaited: usize,
    bytes_most: u64,
    bytes_capacity: u64,
    released: u64,
}

/// What the kernel side is told of a file without a table.
const NO_TABLE: FileTable = FileTable {
    page_base: 0,
    page_count: 0,
    segments_len: 0,
    rows: FileTable::ROWS_OF_CALLS,
    segments: [NO_SEGMENT; MAX_SEGMENTS],
};

impl Tables {
    pub(super) fn new(object: &Object, capacity: Capacity) -> Result<Self, BpfError> {
        let (sender, receiver) = channel();
        Ok(Self {
            maps: object.table_maps(&capacity)?,
            arena: Arena::new(capacity),
            files: HashMap::new(),
            untold: HashMap::new(),
            sender,
            receiver,
            awaited: 0,
            bytes_most: 0,
            bytes_capacity: capacity.bytes(),
            released: 0,
        })
    }

    /// The table of a file.
    pub(super) fn of_file(&self, file: &MappedFile) -> OfFile<'_> {
        self.of(&file.key)
    }

    /// Whether a place in a file is where signal handlers return to.
    pub(super) fn is_signal_frame(&self, file: &MappedFile, offset: u64) -> bool {
        let (OfFile::Table(table) | OfFile::OfCallSites(table)) = self.of_file(file) else {
            return false;
        };
        let relative = table.bias(0, offset).map(|bias| 0u64.wrapping_sub(bias));
        let rule = relative.and_then(|relative| table.rule_at(relative));
        rule.is_some_and(|rule| rule.cfa_kind == cfa::SIGNAL)
    }

    fn of(&self, key: &FileKey) -> OfFile<'_> {
        match self.files.get(key) {
            Some(State::Placed { table, more, .. }) => match more {
                More::No => OfFile::Table(table),
                More::CanBeMade | More::Awaited => OfFile::OfCallSites(table),
            },
            Some(State::Without) => OfFile::Without,
            Some(State::Awaited) | None => OfFile::Missing,
        }
    }

    /// Makes the tables of these files, several at once, and waits for them.
    pub(super) fn make_now(
        &mut self,
        object: &mut Object,
        files: &[Arc<MappedFile>],
    ) -> Result<(), BpfError> {
        let mut wanted = Vec::new();
        for file in files {
            let key = file.key;
            if let Entry::Vacant(unknown) = self.files.entry(key) {
                unknown.insert(State::Awaited);
                wanted.push((Arc::clone(file), key));
            }
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let workers = std::thread::available_parallelism()
            .map_or(1, NonZeroUsize::get)
            .min(wanted.len());
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (sender, next, wanted) = (sender.clone(), &next, &wanted);
                scope.spawn(move || {
                    while let Some((file, key)) =
                        wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        if sender.send(compile(file, *key, Rows::CallSites)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for compiled in receiver {
                self.place(object, compiled, Use::Not)?;
            }
            Ok::<(), BpfError>(())
        })?;
        self.maps.change_generation();
        Ok(())
    }

    /// Makes the table of the vDSO, which is the same in all processes. It calls nothing: only signals interrupt it, so
    /// that it needs all rows.
    pub(super) fn make_of_vdso(&mut self, object: &mut Object) -> Result<(), BpfError> {
        let compiled = compile_bytes(PathBuf::from(VDSO), FileKey::VDSO, vdso(), Rows::All);
        self.place(object, compiled, Use::Not)
    }

    /// The table of the vDSO.
    pub(super) fn of_vdso(&self) -> OfFile<'_> {
        self.of(&FileKey::VDSO)
    }

    /// Makes the table of a file that the kernel side has not met on a thread; [`take_made`](Self::take_made) places
    /// it.
    pub(super) fn make(&mut self, object: &mut Object, file: &Arc<MappedFile>) -> Result<(), BpfError> {
        self.make_later(object, Some(Arc::clone(file)), file.key)
    }

    /// Makes a file's table on a thread; [`take_made`](Self::take_made) places it.
    pub(super) fn make_later(
        &mut self,
        object: &mut Object,
        file: Option<Arc<MappedFile>>,
        key: FileKey,
    ) -> Result<(), BpfError> {
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let Some(file) = file else {
            // The process has gone, or executes another program. What it had mapped is told by events that are still to
            // come, and whoever maps the file again is heard of again; not for ever, should nobody be able to open it.
            let turns = self.untold.entry(key).or_default();
            *turns += 1;
            if *turns < MOST_UNTOLD {
                return object.remove_file_table(key);
            }
            self.files.insert(key, State::Without);
            return object.set_file_table(key, NO_TABLE);
        };
        self.files.insert(key, State::Awaited);
        self.spawn(file, key, Rows::CallSites);
        Ok(())
    }

    /// Makes all rows of a file whose table has those of call sites alone.
    pub(super) fn make_all_rows(&mut self, file: &Arc<MappedFile>) {
        if let Some(State::Placed { more, .. }) = self.files.get_mut(&file.key)
            && *more == More::CanBeMade
        {
            *more = More::Awaited;
            self.spawn(Arc::clone(file), file.key, Rows::All);
        }
    }

    fn spawn(&mut self, file: Arc<MappedFile>, key: FileKey, rows: Rows) {
        self.awaited += 1;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            if sender.send(compile(&file, key, rows)).is_err() {
                log::debug!("a table was made too late");
            }
        });
    }

    /// Whether tables are being made.
    pub(super) fn is_waiting(&self) -> bool {
        self.awaited > 0
    }

    /// Places the tables that are ready.
    pub(super) fn take_made(&mut self, object: &mut Object) -> Result<(), BpfError> {
        if self.awaited == 0 {
            return Ok(());
        }
        let mut placed = false;
        while let Ok(compiled) = self.receiver.try_recv() {
            self.awaited -= 1;
            self.place(object, compiled, Use::Now)?;
            placed = true;
        }
        if placed {
            self.maps.change_generation();
        }
        Ok(())
    }

    /// Waits for a table that is being made, and places it.
    pub(super) fn wait_for_one(&mut self, object: &mut Object) -> Result<(), BpfError> {
        // The sender is ours too, so that there is always one: nobody may wait who awaits nothing.
        if self.awaited > 0
            && let Ok(compiled) = self.receiver.recv()
        {
            self.awaited -= 1;
            self.place(object, compiled, Use::Now)?;
            self.maps.change_generation();
        }
        Ok(())
    }

    /// Gives back the room of tables whose last process has been gone for a while. `mapped` are the files of the
    /// processes that run.
    pub(super) fn release(
        &mut self,
        object: &mut Object,
        mapped: impl Iterator<Item = FileKey>,
    ) -> Result<(), BpfError> {
        let mapped: HashSet<FileKey> = mapped.collect();
        let now = Instant::now();
        let mut over = Vec::new();
        for (key, state) in &mut self.files {
            let State::Placed { use_, .. } = state else {
                continue;
            };
            match use_ {
                _ if mapped.contains(key) => *use_ = Use::Now,
                Use::Now => *use_ = Use::Over(now),
                Use::Over(since) if now.duration_since(*since) >= LINGER => over.push(*key),
                Use::Not | Use::Over(_) => {}
            }
        }
        self.remove(object, &over)
    }

    /// Gives back the room of all tables that no running process needs. False if there are none.
    fn release_all(&mut self, object: &mut Object) -> Result<bool, BpfError> {
        let is_over = |state: &State| {
            matches!(
                state,
                State::Placed {
                    use_: Use::Over(_),
                    ..
                }
            )
        };
        let over = self.files.iter().filter(|(_, state)| is_over(state));
        let over: Vec<FileKey> = over.map(|(key, _)| *key).collect();
        self.remove(object, &over)?;
        Ok(!over.is_empty())
    }

    /// Takes tables away from the kernel side, and their room once no walk can be looking at them.
    fn remove(&mut self, object: &mut Object, keys: &[FileKey]) -> Result<(), BpfError> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            object.remove_file_table(*key)?;
        }
        self.maps.change_generation();
        wait_for_walks();
        for key in keys {
            if let Some(State::Placed { placement, .. }) = self.files.remove(key) {
                self.released += 1;
                self.arena.remove(placement);
            }
        }
        log::debug!(
            "{} unwind tables given back: their processes have ended",
            keys.len()
        );
        Ok(())
    }

    /// Gives the kernel side a table. `use_`: who has the file mapped, if there was no table of it.
    fn place(&mut self, object: &mut Object, compiled: Compiled, use_: Use) -> Result<(), BpfError> {
        let Compiled {
            path,
            key,
            table,
            took,
        } = compiled;
        let path = path.display();
        let inserted = match table {
            Err(reason) => {
                log::debug!("{path}: no unwind table: {reason}");
                None
            }
            Ok(table) => match self.insert(object, &table)? {
                Err(full) => {
                    let instead = if self.has_table(&key) {
                        "call sites alone"
                    } else {
                        "frame pointers"
                    };
                    log::warn!("{path} is walked by {instead}: {full}; --unwind-memory makes room");
                    None
                }
                Ok(inserted) => Some((table, inserted)),
            },
        };
        let Some((table, Inserted { placement, delta })) = inserted else {
            return self.place_nothing(object, key);
        };
        log::debug!(
            "{path}: {} rows of unwind table in {} ms",
            placement.row_count(),
            took.as_millis()
        );
        self.maps.write(&delta);
        let (more, rows) = match table.kind() {
            Rows::CallSites => (More::CanBeMade, FileTable::ROWS_OF_CALLS_YET),
            Rows::All => (More::No, FileTable::ROWS_ALL),
        };
        object.set_file_table(key, entry(&placement, &table, rows))?;
        let state = State::Placed {
            placement,
            table: Box::new(table),
            more,
            use_: self.use_of(&key).unwrap_or(use_),
        };
        self.bytes_most = self.bytes_most.max(self.arena.usage().bytes());
        if let Some(State::Placed { placement, .. }) = self.files.insert(key, state) {
            // The table of call sites that was there before.
            self.maps.change_generation();
            wait_for_walks();
            self.arena.remove(placement);
        }
        Ok(())
    }

    /// There is no table, or no better one than there was.
    fn place_nothing(&mut self, object: &mut Object, key: FileKey) -> Result<(), BpfError> {
        if let Some(State::Placed {
            placement,
            table,
            more,
            ..
        }) = self.files.get_mut(&key)
        {
            *more = More::No;
            return object.set_file_table(key, entry(placement, table, FileTable::ROWS_OF_CALLS));
        }
        self.files.insert(key, State::Without);
        object.set_file_table(key, NO_TABLE)
    }

    fn has_table(&self, key: &FileKey) -> bool {
        matches!(self.files.get(key), Some(State::Placed { .. }))
    }

    fn use_of(&self, key: &FileKey) -> Option<Use> {
        match self.files.get(key) {
            Some(State::Placed { use_, .. }) => Some(*use_),
            _ => None,
        }
    }

    /// Finds room for a table, that of tables that nobody needs if there is no other.
    fn insert(
        &mut self,
        object: &mut Object,
        table: &Table,
    ) -> Result<Result<Inserted, ArenaFull>, BpfError> {
        match self.arena.insert(table) {
            Err(_) if self.release_all(object)? => Ok(self.arena.insert(table)),
            inserted => Ok(inserted),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let count =
            |wanted: fn(&State) -> bool| self.files.values().filter(|state| wanted(state)).count() as u64;
        Usage {
            files: count(|state| matches!(state, State::Placed { .. })),
            files_without: count(|state| matches!(state, State::Without)),
            bytes: self.arena.usage().bytes(),
            bytes_most: self.bytes_most,
            bytes_capacity: self.bytes_capacity,
            files_released: self.released,
            ..Usage::default()
        }
    }
}

/// The name of the vDSO's mapping.
pub(super) const VDSO: &str = "[vdso]";

/// The image of the vDSO, which the kernel has mapped into this process as into any other.
fn vdso() -> io::Result<Vec<u8>> {
    let mappings = maps::executable_mappings(std::process::id())?;
    let mapping = mappings.iter().find(|mapping| mapping.path.as_os_str() == VDSO);
    let mapping = mapping.ok_or_else(|| io::Error::other("this process has none"))?;
    let mut image = vec![0; usize::try_from(mapping.end - mapping.start).map_err(io::Error::other)?];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, mapping.start)?;
    Ok(image)
}

/// Returns when every walk that had begun has ended. Walks are in RCU read-side sections, as all programs of uprobes and
/// tracepoints are, and this is how user space waits for those.
fn wait_for_walks() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        // Kernels with CPUs that have no tick refuse. A walk takes microseconds.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn compile(file: &MappedFile, key: FileKey, rows: Rows) -> Compiled {
    compile_bytes(file.path.clone(), key, std::fs::read(file.open_path()), rows)
}

fn compile_bytes(path: PathBuf, key: FileKey, bytes: io::Result<Vec<u8>>, rows: Rows) -> Compiled {
    let began = Instant::now();
    let options = Options {
        rows,
        ..Options::default()
    };
    let table = bytes
        .map_err(|error| error.to_string())
        .and_then(|bytes| unwind::compile(&bytes, options).map_err(|error| error.to_string()));
    Compiled {
        path,
        key,
        table,
        took: began.elapsed(),
    }
}

/// What the kernel side is told of a table.
fn entry(placement: &Placement, table: &Table, rows: u32) -> FileTable {
    let mut entry = FileTable {
        page_base: placement.page_base(),
        page_count: placement.page_count(),
        rows,
        ..NO_TABLE
    };
    let segments = segments(table);
    entry.segments_len = u32::try_from(segments.len()).unwrap_or(0);
    for (to, from) in entry.segments.iter_mut().zip(segments) {
        *to = from;
    }
    entry
}

/// The executable segments of a table's file, as the kernel side looks for them.
fn segments(table: &Table) -> Vec<Segment> {
    let page = u64::from(MAPPED_PAGE_BYTES);
    let segments = table.segments().iter().map(|segment| Segment {
        file_start: segment.offset - segment.offset % page,
        file_end: segment.offset.saturating_add(segment.file_size),
        to_table: segment
            .address
            .wrapping_sub(segment.offset)
            .wrapping_sub(table.base()),
    });
    segments.take(MAX_SEGMENTS).collect()
}
