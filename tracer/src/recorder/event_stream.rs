//! The events that the kernel sends, from the ring of the eBPF side and the records of process
//! life, and their dispatch to the parts of a recording that keep them.

use std::sync::Arc;
use std::time::Duration;

use super::attach::Attachments;
use super::exited_processes::ExitedProcesses;
use super::guard::StopGuard;
use super::heap_history::HeapHistory;
use super::process_table::ProcessTable;
use super::stack_table::StackTable;
use super::targets::TargetScope;
use super::unwind_tables::Unwinding;
use crate::bpf::load::BpfError;
use crate::bpf::records::{Records, ReportedProcess};
use crate::bpf::{Object, RingRecord, processes};
use crate::clock::monotonic_ns;
use crate::process::files::MappedFile;
use crate::process::sideband::{ProcessEvent, Sideband};

/// Both sources of events.
pub(super) struct EventStream {
    ring: Records,
    sideband: Sideband,
    /// Lost records of process life that were answered by reading mappings.
    lost_answered: u64,
}

/// The parts of a recording that events go to.
pub(super) struct EventSinks<'a> {
    pub(super) object: &'a mut Object,
    pub(super) attachments: &'a mut Attachments,
    pub(super) guard: Option<&'a mut StopGuard>,
    pub(super) processes: &'a mut ProcessTable,
    pub(super) stacks: &'a mut StackTable,
    pub(super) unwinding: Option<&'a mut Unwinding>,
    pub(super) heap_history: Option<&'a mut HeapHistory>,
    pub(super) exited: &'a mut ExitedProcesses,
    pub(super) scope: &'a TargetScope,
    /// Time since the recording's start.
    pub(super) elapsed: Duration,
}

impl EventStream {
    /// Takes the ring of a loaded object. The records of process life are opened before the targets
    /// are looked at, so that nothing is missed in between.
    pub(super) fn new(object: &mut Object, sideband: Sideband) -> Result<Self, BpfError> {
        Ok(Self {
            ring: Records::take_ring(object)?,
            sideband,
            lost_answered: 0,
        })
    }

    /// Waits until the ring has something that cannot wait: new code, or that it fills up.
    pub(super) async fn urgent(&mut self) -> std::io::Result<()> {
        self.ring.urgent().await
    }

    /// Counts the records of process life that are lost from now on.
    pub(super) fn begin(&mut self) {
        self.sideband.begin_count();
    }

    /// Counts them up to now.
    pub(super) fn end(&mut self) {
        self.sideband.end_count();
    }

    /// Records of process life that the kernel could not write during the recording.
    pub(super) fn life_records_lost(&self) -> u64 {
        self.sideband.counted()
    }

    /// Reads all events; `at_end` also those that an earlier one may still follow. Returns true if
    /// a target may have ended.
    pub(super) fn dispatch(&mut self, to: &mut EventSinks<'_>, at_end: bool) -> bool {
        to.object.flush_messages();
        // Before the records: they say why a process was stopped.
        let stopped = match &mut to.guard {
            Some(guard) => guard.stopped(to.object),
            None => Vec::new(),
        };
        if let Some(unwinding) = &mut to.unwinding {
            unwinding.place_compiled(to.object);
        }
        while let Some(record) = self.ring.take() {
            to.take_record(record);
        }
        to.resume_parents();
        let mut exits = false;
        for event in self.sideband.take(at_end) {
            let pid = event.pid;
            if event.what == ProcessEvent::Exited && to.processes.on_exit(pid, event.time_ns) {
                exits = true;
                to.exited.note_exit();
                to.attachments.on_exit(pid);
            }
            let new = match event.what {
                ProcessEvent::Forked { parent } => Some((parent, event.time_ns)),
                _ => None,
            };
            if matches!(event.what, ProcessEvent::Mapped(_)) {
                to.take_in_if_target(pid);
            }
            if let Some(file) = to.processes.history_mut().apply(event) {
                to.take_mapped_file(&file, pid);
            }
            if let Some((parent, time_ns)) = new {
                to.attachments.on_forked(pid, parent, time_ns);
                // A process can be born into the cgroup, and was announced before its parent's
                // mappings were known to be its own.
                to.take_in_if_target(pid);
            }
        }
        to.attachments.attach_unreported(to.object, at_end);
        let lost = self.sideband.lost();
        if lost > self.lost_answered {
            self.lost_answered = lost;
            to.read_mappings_again();
        }
        // After the events: they tell the mappings.
        to.finish_walks(self.sideband.settled_ns(), at_end, &stopped);
        to.look_at_heap(at_end);
        exits
    }
}

impl EventSinks<'_> {
    fn take_record(&mut self, record: RingRecord) {
        match record {
            RingRecord::Stack(stack) => self.stacks.add(stack),
            RingRecord::File(new) => {
                if let Some(unwinding) = &mut self.unwinding {
                    unwinding.on_file_met(self.object, self.processes, &new);
                }
            }
            RingRecord::Unprobed(new) => {
                let was_silent = || self.guard.as_ref().is_some_and(|guard| guard.was_silent());
                let expects_stop = new.is_stopped || !was_silent();
                self.attachments.on_unprobed(self.object, new, expects_stop);
                self.resume_reported(new);
            }
            RingRecord::StopWatcher(watcher) => {
                if let Some(guard) = &mut self.guard {
                    guard.note_watcher(watcher.tgid);
                }
                self.attachments.on_stop_noticed(self.object, watcher.tgid);
                self.resume_reported(watcher);
            }
            RingRecord::Counts(new) => processes::take_counted(self.object, new),
            RingRecord::Process(new) => {
                self.processes.on_announced(new);
                // It may have taken the place of another image.
                self.exited.note_exit();
            }
        }
    }

    fn resume_reported(&mut self, process: ReportedProcess) {
        if process.is_stopped
            && let Some(guard) = &mut self.guard
        {
            guard.resume_begun(process.tgid);
        }
    }

    /// Resumes parents that have noticed a stop of their children.
    fn resume_parents(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        let processes = &self.processes;
        if let Some(pid) = guard.resume_parents(|pid| processes.has_pid(pid)) {
            self.attachments.on_stop_noticed(self.object, pid);
        }
    }

    /// Takes the processes into scope that have come into the cgroup after they mapped their files.
    pub(super) fn take_in_members(&mut self) {
        for pid in self.scope.cgroup_processes() {
            self.take_in(pid);
        }
    }

    /// Reads what the present targets have mapped, after records of that were lost.
    fn read_mappings_again(&mut self) {
        for (_, pid) in self.processes.present_targets() {
            let now_ns = monotonic_ns();
            for file in self.processes.history_mut().refresh(pid, now_ns) {
                self.take_mapped_file(&file, pid);
            }
        }
    }

    fn take_in_if_target(&mut self, pid: u32) {
        let history = self.processes.history();
        if !history.is_in_scope(pid) && (self.processes.has_pid(pid) || self.scope.takes_in(pid)) {
            self.take_in(pid);
        }
    }

    fn take_in(&mut self, pid: u32) {
        for file in self.processes.history_mut().take_in(pid) {
            self.take_mapped_file(&file, pid);
        }
    }

    fn take_mapped_file(&mut self, file: &Arc<MappedFile>, pid: u32) {
        let is_target = self.processes.has_pid(pid);
        if is_target || self.scope.is_open() {
            // A process outside of the cgroup may come into it yet.
            let is_late = is_target || !self.scope.is_cgroup();
            self.attachments.on_file_mapped(self.object, file, pid, is_late);
        }
        if is_target && let Some(unwinding) = &mut self.unwinding {
            unwinding.on_file_mapped(self.object, file);
        }
    }

    /// Finishes deferred walks, and resumes processes that were stopped for tables if none is being
    /// compiled.
    fn finish_walks(&mut self, settled_ns: u64, at_end: bool, stopped: &[u32]) {
        if let Some(unwinding) = &mut self.unwinding {
            unwinding.finish_walks(self.object, self.processes, self.stacks, settled_ns, at_end);
        }
        let is_compiling = self
            .unwinding
            .as_ref()
            .is_some_and(|unwinding| unwinding.is_compiling());
        if let Some(guard) = &mut self.guard
            && !is_compiling
        {
            guard.resume(stopped);
        }
    }

    /// Takes a snapshot of the heap, and reclaims the blocks of exited processes. At the end their
    /// ages are still to be read.
    fn look_at_heap(&mut self, at_end: bool) {
        let Some(history) = &mut self.heap_history else {
            return;
        };
        if let Err(error) = history.observe(self.object, self.elapsed) {
            log::warn!("{error}: peaks have no stacks, growth is not known");
        }
        if !at_end && let Err(error) = self.exited.reclaim(self.object, self.processes) {
            log::warn!("{error}: the blocks of processes that have ended stay in the table");
        }
    }
}
