//! The unwind tables of the files that targets map: compiled on threads of their own, placed in the kernel side's
//! arrays, shared by all processes that map the same file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use tracer_ebpf::{FileKey, FileTable};

use super::compiled::{Compiled, NO_TABLE, VDSO, compile, compile_bytes, entry, vdso};
use super::released::wait_for_walks;
use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::bpf::tables::TableMaps;
use crate::process::files::MappedFile;
use crate::report::session::TableUsage;
use crate::unwind::layout::cfa;
use crate::unwind::{Arena, ArenaFull, Capacity, Inserted, Placement, Rows, Table};

/// What is known of a file.
#[derive(Debug)]
pub(super) enum State {
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
pub(super) enum More {
    /// It can, should a signal ever interrupt the file's code.
    CanBeMade,
    /// They are being made.
    Awaited,
    /// It has them all, or there is no room for them.
    No,
}

/// Whether a file is mapped by a process that we know.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
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

/// How often a file may be met that cannot be found, until it has to do without a table.
const MOST_UNTOLD: u32 = 16;

/// The tables of all files.
pub(super) struct Tables {
    pub(super) maps: TableMaps,
    pub(super) arena: Arena,
    pub(super) files: HashMap<FileKey, State>,
    /// How often a file was met that could not be found.
    pub(super) untold: HashMap<FileKey, u32>,
    pub(super) sender: Sender<Compiled>,
    pub(super) receiver: Receiver<Compiled>,
    pub(super) awaited: usize,
    pub(super) bytes_most: u64,
    pub(super) bytes_capacity: u64,
    pub(super) released: u64,
}

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

    pub(super) fn usage(&self) -> TableUsage {
        let count =
            |wanted: fn(&State) -> bool| self.files.values().filter(|state| wanted(state)).count() as u64;
        TableUsage {
            files: count(|state| matches!(state, State::Placed { .. })),
            files_without: count(|state| matches!(state, State::Without)),
            bytes: self.arena.usage().bytes(),
            bytes_most: self.bytes_most,
            bytes_capacity: self.bytes_capacity,
            files_released: self.released,
            ..TableUsage::default()
        }
    }
}
