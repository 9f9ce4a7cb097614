//! The unwind tables of mapped files: placed in the kernel side's arrays, shared by all processes
//! that map the same file, and given back when the last of them has ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracer_ebpf::{FileKey, FileTable};

use super::compiler::{CompiledTable, NO_TABLE, TableBatch, TableCompiler, compile_vdso, table_entry};
use crate::bpf::load::BpfError;
use crate::bpf::tables::TableMaps;
use crate::bpf::{Object, tables};
use crate::process::files::MappedFile;
use crate::profile::session::TableUsage;
use crate::unwind::layout::cfa;
use crate::unwind::{Arena, ArenaFull, Capacity, Inserted, Placement, Rows, Table};

/// The state of a file's table.
#[derive(Debug)]
enum TableState {
    /// Being compiled.
    Compiling,
    /// In the arrays.
    Placed {
        placement: Placement,
        /// A copy for deferred walks.
        table: Box<Table>,
        full: FullTable,
        usage: Use,
    },
    /// There is none, or no room for it.
    Without,
}

/// The way from a table of call sites to one of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FullTable {
    /// It can be compiled, if a signal ever interrupts the file's code.
    Possible,
    /// It is being compiled.
    Compiling,
    /// The table has all rows, or there is no room for them.
    Final,
}

/// The use of a table by processes.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// Not yet: of a program that is going to be executed. Or always: of the vDSO.
    Reserved,
    /// A running process had the file mapped at the last check.
    Mapped,
    /// No process has had the file mapped since this time.
    Unused(Instant),
}

/// A file's table, for a deferred walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum TableLookup<'a> {
    /// A table that no better one can replace.
    Table(&'a Table),
    /// A table of call sites, which one of all rows can replace.
    CallSites(&'a Table),
    /// There is none, or no room for it.
    Without,
    /// It is not compiled yet.
    Missing,
}

/// A file that cannot be found is compiled no more after so many records of it.
const MAX_UNKNOWN: u32 = 16;

/// A table stays for so long after its last process: programs are often run again.
const LINGER: Duration = Duration::from_secs(5);

/// The tables of all files.
pub(crate) struct UnwindTables {
    maps: TableMaps,
    arena: Arena,
    files: HashMap<FileKey, TableState>,
    /// Records of files that could not be found.
    unknown: HashMap<FileKey, u32>,
    compiler: TableCompiler,
    peak_bytes: u64,
    capacity_bytes: u64,
    reclaimed: u64,
}

impl UnwindTables {
    /// Returns an empty set.
    pub(crate) fn new(object: &Object, capacity: Capacity) -> Result<Self, BpfError> {
        Ok(Self {
            maps: TableMaps::map(object, &capacity)?,
            arena: Arena::new(capacity),
            files: HashMap::new(),
            unknown: HashMap::new(),
            compiler: TableCompiler::new(),
            peak_bytes: 0,
            capacity_bytes: capacity.bytes(),
            reclaimed: 0,
        })
    }

    /// Returns true if a place in a file is the one that signal handlers return to.
    pub(crate) fn is_signal_frame(&self, file: &MappedFile, offset: u64) -> bool {
        let (TableLookup::Table(table) | TableLookup::CallSites(table)) = self.lookup(file.key) else {
            return false;
        };
        let relative = table.bias(0, offset).map(|bias| 0u64.wrapping_sub(bias));
        let rule = relative.and_then(|relative| table.rule_at(relative));
        rule.is_some_and(|rule| rule.cfa_kind == cfa::SIGNAL)
    }

    /// Returns the table of a file.
    pub(super) fn lookup(&self, key: FileKey) -> TableLookup<'_> {
        match self.files.get(&key) {
            Some(TableState::Placed { table, full, .. }) => match full {
                FullTable::Final => TableLookup::Table(table),
                FullTable::Possible | FullTable::Compiling => TableLookup::CallSites(table),
            },
            Some(TableState::Without) => TableLookup::Without,
            Some(TableState::Compiling) | None => TableLookup::Missing,
        }
    }

    /// Places the tables of a batch and of the vDSO, and waits for them. Must come first.
    pub(crate) fn place_batch(&mut self, object: &mut Object, batch: &TableBatch) -> Result<(), BpfError> {
        self.files
            .extend(batch.keys().map(|key| (key, TableState::Compiling)));
        for compiled in batch.tables() {
            self.place(object, compiled, Use::Reserved)?;
        }
        self.place(object, compile_vdso(), Use::Reserved)?;
        self.maps.change_generation();
        Ok(())
    }

    /// Begins the table of a file, unless there is one. Without a file, notes that it could not be
    /// found.
    pub(crate) fn compile(
        &mut self,
        object: &mut Object,
        file: Option<Arc<MappedFile>>,
        key: FileKey,
    ) -> Result<(), BpfError> {
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let Some(file) = file else {
            // The process has gone, or executes another program. Events that are still to come tell
            // its mappings, and a new process that maps the file is announced again; not for ever,
            // in case nobody can open the file.
            let records = self.unknown.entry(key).or_default();
            *records += 1;
            if *records < MAX_UNKNOWN {
                return tables::remove_file_table(object, key);
            }
            self.files.insert(key, TableState::Without);
            return tables::set_file_table(object, key, NO_TABLE);
        };
        self.files.insert(key, TableState::Compiling);
        self.compiler.begin(file, key, Rows::CallSites);
        Ok(())
    }

    /// Begins a table of all rows of a file whose table has those of call sites alone.
    pub(crate) fn compile_all_rows(&mut self, file: &Arc<MappedFile>) {
        if let Some(TableState::Placed { full, .. }) = self.files.get_mut(&file.key)
            && *full == FullTable::Possible
        {
            *full = FullTable::Compiling;
            self.compiler.begin(Arc::clone(file), file.key, Rows::All);
        }
    }

    /// Returns true if tables are being compiled.
    pub(crate) fn is_compiling(&self) -> bool {
        self.compiler.is_busy()
    }

    /// Places the tables that are ready.
    pub(crate) fn place_compiled(&mut self, object: &mut Object) -> Result<(), BpfError> {
        let mut is_changed = false;
        while let Some(compiled) = self.compiler.take() {
            self.place(object, compiled, Use::Mapped)?;
            is_changed = true;
        }
        if is_changed {
            self.maps.change_generation();
        }
        Ok(())
    }

    /// Waits for a table that is being compiled, and places it.
    pub(crate) fn wait_for_one(&mut self, object: &mut Object) -> Result<(), BpfError> {
        if let Some(compiled) = self.compiler.wait() {
            self.place(object, compiled, Use::Mapped)?;
            self.maps.change_generation();
        }
        Ok(())
    }

    /// Gives the kernel side a table. The use is `usage`, unless it replaces a table.
    fn place(&mut self, object: &mut Object, compiled: CompiledTable, usage: Use) -> Result<(), BpfError> {
        let CompiledTable {
            path,
            key,
            table,
            took,
        } = compiled;
        let path = path.display();
        let usage_before = match self.files.get(&key) {
            Some(TableState::Placed { usage, .. }) => Some(*usage),
            _ => None,
        };
        let inserted = match table {
            Err(reason) => {
                log::debug!("{path}: no unwind table: {reason}");
                None
            }
            Ok(table) => match self.insert(object, &table)? {
                Err(full) => {
                    let instead = if usage_before.is_some() {
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
        let (full, rows) = match table.kind() {
            Rows::CallSites => (FullTable::Possible, FileTable::ROWS_OF_CALLS_YET),
            Rows::All => (FullTable::Final, FileTable::ROWS_ALL),
        };
        tables::set_file_table(object, key, table_entry(&placement, &table, rows))?;
        let state = TableState::Placed {
            placement,
            table: Box::new(table),
            full,
            usage: usage_before.unwrap_or(usage),
        };
        self.peak_bytes = self.peak_bytes.max(self.arena.usage().bytes());
        if let Some(TableState::Placed { placement, .. }) = self.files.insert(key, state) {
            // The table of call sites that was there before.
            self.maps.change_generation();
            wait_for_walks();
            self.arena.remove(placement);
        }
        Ok(())
    }

    /// Notes that a file has no table, or no better one than before.
    fn place_nothing(&mut self, object: &mut Object, key: FileKey) -> Result<(), BpfError> {
        if let Some(TableState::Placed {
            placement,
            table,
            full,
            ..
        }) = self.files.get_mut(&key)
        {
            *full = FullTable::Final;
            return tables::set_file_table(
                object,
                key,
                table_entry(placement, table, FileTable::ROWS_OF_CALLS),
            );
        }
        self.files.insert(key, TableState::Without);
        tables::set_file_table(object, key, NO_TABLE)
    }

    /// Finds room for a table, that of unused tables if there is no other.
    fn insert(
        &mut self,
        object: &mut Object,
        table: &Table,
    ) -> Result<Result<Inserted, ArenaFull>, BpfError> {
        match self.arena.insert(table) {
            Err(_) if self.reclaim_unused(object)? => Ok(self.arena.insert(table)),
            inserted => Ok(inserted),
        }
    }

    /// Reclaims the room of tables whose last process ended a while ago. `mapped` are the files of
    /// running processes.
    pub(crate) fn reclaim(
        &mut self,
        object: &mut Object,
        mapped: impl Iterator<Item = FileKey>,
    ) -> Result<(), BpfError> {
        let mapped: HashSet<FileKey> = mapped.collect();
        let now = Instant::now();
        let mut unused = Vec::new();
        for (key, state) in &mut self.files {
            let TableState::Placed { usage, .. } = state else {
                continue;
            };
            match usage {
                _ if mapped.contains(key) => *usage = Use::Mapped,
                Use::Mapped => *usage = Use::Unused(now),
                Use::Unused(since) if now.duration_since(*since) >= LINGER => unused.push(*key),
                Use::Reserved | Use::Unused(_) => {}
            }
        }
        self.remove(object, &unused)
    }

    /// Reclaims the room of all unused tables. Returns false if there are none.
    fn reclaim_unused(&mut self, object: &mut Object) -> Result<bool, BpfError> {
        let is_unused = |state: &TableState| {
            matches!(
                state,
                TableState::Placed {
                    usage: Use::Unused(_),
                    ..
                }
            )
        };
        let unused = self.files.iter().filter(|(_, state)| is_unused(state));
        let unused: Vec<FileKey> = unused.map(|(key, _)| *key).collect();
        self.remove(object, &unused)?;
        Ok(!unused.is_empty())
    }

    /// Removes tables from the kernel side, and frees their room once no walk can be reading them.
    fn remove(&mut self, object: &mut Object, keys: &[FileKey]) -> Result<(), BpfError> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            tables::remove_file_table(object, *key)?;
        }
        self.maps.change_generation();
        wait_for_walks();
        for key in keys {
            if let Some(TableState::Placed { placement, .. }) = self.files.remove(key) {
                self.reclaimed += 1;
                self.arena.remove(placement);
            }
        }
        log::debug!(
            "{} unwind tables given back: their processes have ended",
            keys.len()
        );
        Ok(())
    }

    /// The tables in figures.
    pub(crate) fn usage(&self) -> TableUsage {
        let count = |wanted: fn(&TableState) -> bool| {
            self.files.values().filter(|state| wanted(state)).count() as u64
        };
        TableUsage {
            files: count(|state| matches!(state, TableState::Placed { .. })),
            files_without: count(|state| matches!(state, TableState::Without)),
            bytes: self.arena.usage().bytes(),
            bytes_most: self.peak_bytes,
            bytes_capacity: self.capacity_bytes,
            files_released: self.reclaimed,
            ..TableUsage::default()
        }
    }
}

/// Returns when every walk that had begun has ended. Walks are in RCU read-side sections, as all
/// programs of uprobes and tracepoints are, and `membarrier` waits for those.
fn wait_for_walks() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        // Kernels with CPUs that have no tick refuse. A walk takes microseconds.
        std::thread::sleep(Duration::from_millis(100));
    }
}
