//! Stack walks by unwind tables: the tables of mapped files, and the walks that the kernel side could not finish
//! without them.

mod compiler;
mod deferred_walks;
mod table_set;

use std::sync::Arc;

use self::deferred_walks::DeferredWalks;
use self::table_set::UnwindTables;
use super::process_table::ProcessTable;
use super::stack_table::StackTable;
use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::bpf::records::NewFile;
use crate::process::files::MappedFile;
use crate::process::maps;
use crate::report::session::Tables as TableUsage;
use crate::unwind::Capacity;

/// The unwind tables and the deferred walks of a recording.
pub(super) struct Unwinding {
    tables: UnwindTables,
    walks: DeferredWalks,
}

impl Unwinding {
    /// Takes the ring of copies of a loaded object. `frame_pointers`: code without tables is walked by frame pointers.
    pub(super) fn new(
        object: &mut Object,
        capacity: Capacity,
        frame_pointers: bool,
    ) -> Result<Self, BpfError> {
        Ok(Self {
            tables: UnwindTables::new(object, capacity)?,
            walks: DeferredWalks::new(object.copies()?, frame_pointers),
        })
    }

    /// Compiles the tables of these files and of the vDSO, and waits for them.
    pub(super) fn compile_now(
        &mut self,
        object: &mut Object,
        files: &[Arc<MappedFile>],
    ) -> Result<(), BpfError> {
        self.tables.compile_now(object, files)
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

    /// Finishes deferred walks whose tables are there. `at_end`: finishes all, and waits for the tables that they need.
    /// `settled_ns`: the time up to which mappings are known.
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
