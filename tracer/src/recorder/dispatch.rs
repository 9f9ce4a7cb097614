//! The dispatch of events to the parts of a recorder that keep them.

use std::sync::Arc;

use super::recorder::Recorder;
use crate::bpf::Record;
use crate::process::files::MappedFile;
use crate::process::sideband::Life;

/// Reads all events; `at_end` also those that an earlier one may still follow. Returns true if a target may have
/// ended.
pub(super) fn dispatch_events(recorder: &mut Recorder, at_end: bool) -> bool {
    recorder.object.flush_messages();
    // Before the records: they say why a process was stopped.
    let stopped = match &recorder.guard {
        Some(guard) => guard.stopped(&mut recorder.object),
        None => Vec::new(),
    };
    if let Some(unwinding) = &mut recorder.unwinding {
        unwinding.place_compiled(&mut recorder.object);
    }
    while let Some(record) = recorder.events.next_record() {
        match record {
            Record::Stack(stack) => recorder.stacks.add(stack),
            Record::File(new) => {
                if let Some(unwinding) = &mut recorder.unwinding {
                    unwinding.on_file_met(&mut recorder.object, &mut recorder.processes, &new);
                }
            }
            Record::Process(new) => {
                recorder.processes.on_announced(new);
                recorder.exited.note_exit();
            }
        }
    }
    let mut exits = false;
    for event in recorder.events.life_events(at_end) {
        let pid = event.pid;
        if event.what == Life::Exited && recorder.processes.on_exit(pid, event.time_ns) {
            exits = true;
            recorder.exited.note_exit();
        }
        if let Some(file) = recorder.processes.history_mut().apply(event) {
            on_file_mapped(recorder, &file, pid);
        }
    }
    if let Some(unwinding) = &mut recorder.unwinding {
        // After the events: they tell the mappings.
        let settled_ns = recorder.events.settled_ns();
        let (object, stacks) = (&mut recorder.object, &mut recorder.stacks);
        unwinding.finish_walks(object, &recorder.processes, stacks, settled_ns, at_end);
        if let Some(guard) = &mut recorder.guard
            && !unwinding.is_compiling()
        {
            guard.resume(&mut recorder.object, &stopped);
        }
    }
    if let Some(history) = &mut recorder.heap_history {
        if let Err(error) = history.observe(&recorder.object, recorder.clock.started.elapsed()) {
            log::warn!("{error}: peaks have no stacks, growth is not known");
        }
        // At the end, ages are still to be read.
        if !at_end
            && let Err(error) = recorder
                .exited
                .reclaim(&mut recorder.object, &mut recorder.processes)
        {
            log::warn!("{error}: the blocks of processes that have ended stay in the table");
        }
    }
    exits
}

fn on_file_mapped(recorder: &mut Recorder, file: &Arc<MappedFile>, pid: u32) {
    let is_target = recorder.processes.has_pid(pid);
    if is_target || recorder.scope.is_open() {
        // A process outside of the cgroup may come into it yet.
        let is_late = is_target || !recorder.scope.is_cgroup();
        recorder
            .attachments
            .on_file_mapped(&mut recorder.object, file, pid, is_late);
    }
    if is_target && let Some(unwinding) = &mut recorder.unwinding {
        unwinding.on_file_mapped(&mut recorder.object, file);
    }
}
