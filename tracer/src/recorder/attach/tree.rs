//! The tree of targets and their descendants: each process of it has probes of its own, for which
//! nobody else pays, as long as its children can be stopped unseen.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use tracer_ebpf::{
    ProbeScope, SIGCHLD, SIGCONT, WAITS_FOR_STOPS, comm_of, has_signal, is_stop_watcher, takes_later,
    takes_more_child_signals,
};

use super::Attachments;
use crate::bpf::load::BpfError;
use crate::bpf::records::ReportedProcess;
use crate::bpf::{Object, UprobeScope};
use crate::clock::monotonic_ns;
use crate::process::proc_fs;
use crate::recorder::targets::MAX_SCOPES;
use crate::settings::StopPolicy;

/// The scope of probes that are for every process of the machine, in a message.
const MACHINE_SCOPE: &str = "breakpoints are in every process that maps the same libraries, and others pay for a trap at \
                             each call (--scope machine)";

/// Says why a target would notice that its children are stopped, if it would: by its name or, if it
/// runs already, by what it does with signals and waits for. `command`: it was launched, and its
/// name and signals are not its own yet.
fn sees_stops(pid: u32, command: Option<&OsStr>) -> Option<String> {
    let name = match command {
        Some(command) => Path::new(command).file_name()?.to_string_lossy().into_owned(),
        None => proc_fs::comm(pid).ok()?,
    };
    let comm = comm_of(name.as_bytes());
    if is_stop_watcher(&comm) {
        return Some(format!("{name} looks after the stops of its children"));
    }
    if command.is_some() {
        return None;
    }
    let does = |what: &str| {
        Some(format!(
            "{name} ({pid}) {what}, and would notice that children are stopped"
        ))
    };
    let signals = proc_fs::signal_masks(pid)?;
    // A shell blocks all signals around its waits.
    let is_tolerant = takes_more_child_signals(&comm);
    if has_signal(signals.caught, SIGCHLD) && !is_tolerant {
        does("handles SIGCHLD")
    } else if takes_later(signals.blocked, SIGCHLD) && !is_tolerant {
        does("takes SIGCHLD when it wants")
    } else if has_signal(signals.caught, SIGCONT) {
        does("handles SIGCONT")
    } else if proc_fs::threads(pid).into_iter().any(waits_for_stops) {
        does("waits for stops")
    } else {
        None
    }
}

/// Returns true if a thread is in a `wait4` or `waitid` that returns when a child stops, or when
/// its stop ends.
fn waits_for_stops(thread: u32) -> bool {
    let options = match proc_fs::system_call(thread) {
        Some((libc::SYS_wait4, arguments)) => arguments[2],
        Some((libc::SYS_waitid, arguments)) => arguments[3],
        _ => 0,
    };
    options & WAITS_FOR_STOPS != 0
}

/// The time in which a child begins, and is reported.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// The same at the end of a recording, which leaves out those that may have begun when the programs
/// were about to be taken off.
const REPORT_LIMIT_AT_END: Duration = Duration::from_millis(50);

/// Children of a tree's processes. The kernel tells of each twice: by the program that runs where
/// it begins, and by the record of the fork. It passes over a program where one is at work on the
/// same processor already, or a map is being looked at there (`bpf_prog_active` of the kernel's
/// `kernel/trace/bpf_trace.c`): the child goes on without probes.
#[derive(Debug)]
pub(super) struct TreeChildren {
    follows: bool,
    /// When the programs had come to tell of every child: nanoseconds of `CLOCK_MONOTONIC`.
    since_ns: Option<u64>,
    /// Those that their programs have reported, and whose fork was not met yet.
    reported: HashSet<u32>,
    /// The others, and since when.
    unreported: HashMap<u32, Instant>,
    /// The number of processes that began before they had probes.
    late: u64,
}

impl TreeChildren {
    pub(super) fn new(follows: bool) -> Self {
        Self {
            follows,
            since_ns: None,
            reported: HashSet::new(),
            unreported: HashMap::new(),
            late: 0,
        }
    }

    fn on_reported(&mut self, pid: u32) {
        if self.unreported.remove(&pid).is_none() {
            self.reported.insert(pid);
        }
    }

    fn on_forked(&mut self, pid: u32, time_ns: u64) {
        let is_told = self.since_ns.is_some_and(|since_ns| time_ns > since_ns);
        if !self.reported.remove(&pid) && is_told {
            self.unreported.insert(pid, Instant::now());
        }
    }

    fn forget(&mut self) {
        self.reported.clear();
        self.unreported.clear();
    }

    fn knows(&self, pid: u32) -> bool {
        self.unreported.contains_key(&pid)
    }

    /// Takes out those that should have been reported by now.
    fn take_overdue(&mut self, at_end: bool) -> Vec<u32> {
        let limit = if at_end { REPORT_LIMIT_AT_END } else { REPORT_LIMIT };
        self.unreported
            .extract_if(|_, since| since.elapsed() > limit)
            .map(|(pid, _)| pid)
            .collect()
    }
}

impl Attachments {
    /// Decides on the scope of a tree's probes, by the processes that it begins with.
    pub(super) fn begin_tree(
        &mut self,
        object: &mut Object,
        pids: &[u32],
        command: Option<&OsStr>,
    ) -> Result<(), BpfError> {
        let Some(tree) = &mut self.tree else {
            return Ok(());
        };
        tree.extend(pids);
        // Otherwise no child is stopped, or each whoever sees it.
        let asks = self.children.follows && self.stop_children == StopPolicy::Unseen;
        let mut asked = pids.iter().filter(|_| asks);
        let noticed = asked.find_map(|pid| sees_stops(*pid, command));
        let reason = if let Some(noticed) = noticed {
            noticed
        } else if !object.attaches_many() {
            // Each probe would be taken off by itself, a tenth of a second each.
            "the kernel has no links of many uprobes (Linux 6.6)".to_owned()
        } else if tree.len() > MAX_SCOPES {
            format!("there are more than {MAX_SCOPES} targets")
        } else {
            return Ok(());
        };
        log::warn!("{reason}: {MACHINE_SCOPE}");
        self.tree = None;
        object.set_probe_scope(ProbeScope::Machine)
    }

    /// Attaches to a process that has become one of the tree, before its first instruction if it is
    /// stopped. `expects_stop`: it would be, if nobody saw it.
    pub(in crate::recorder) fn on_unprobed(
        &mut self,
        object: &mut Object,
        new: ReportedProcess,
        expects_stop: bool,
    ) {
        self.children.on_reported(new.tgid);
        // Probes come after its beginning, if it is not stopped until then.
        let is_late = !new.is_stopped;
        self.children.late += u64::from(is_late);
        if self.tree.is_some() {
            let was_missed = is_late && expects_stop && self.stop_children != StopPolicy::Never;
            self.attach_child(object, new.tgid, was_missed);
        } else if is_late {
            log::warn!(
                "process {} began before all breakpoints were in: its first calls were not seen",
                new.tgid
            );
        }
    }

    /// Attaches to a process of the tree; to all of the machine where it could not be stopped,
    /// though that was wanted, or the tree has too many.
    fn attach_child(&mut self, object: &mut Object, pid: u32, was_missed: bool) {
        let Some(tree) = &mut self.tree else { return };
        let scope = UprobeScope::Process(pid);
        if tree.remove(&pid) {
            // Another thread than the first has executed a program, and the probes were those of
            // the first. Another process may have had the id as well.
            self.uprobes.remove(scope);
            self.uprobes.wait_for_removed();
        }
        if tree.len() >= MAX_SCOPES {
            self.remove_ended();
        }
        let reason = match &self.tree {
            Some(tree) if tree.len() >= MAX_SCOPES => {
                format!("the targets are more than {MAX_SCOPES} processes at once: from now on")
            }
            _ if was_missed => format!(
                "process {pid} began where its parent would have noticed a stop, or has a debugger: its first calls were \
                 not seen, and from now on"
            ),
            _ => match self.uprobes.attach_all_for(object, scope) {
                Ok(()) => {
                    self.tree.get_or_insert_default().insert(pid);
                    return;
                }
                Err(error) if error.is_gone() => return,
                Err(error) => format!("{error}: from now on"),
            },
        };
        log::warn!("{reason} {MACHINE_SCOPE}");
        self.leave_tree(object);
    }

    /// The number of processes that began before they had probes.
    pub(in crate::recorder) fn late_processes(&self) -> u64 {
        self.children.late
    }

    /// Expects each child that is made from now on to be told of where it begins.
    pub(in crate::recorder) fn expect_children(&mut self) {
        self.children.since_ns = Some(monotonic_ns());
    }

    /// Takes in that a process has been made, after the record of its beginning, if there is one.
    pub(in crate::recorder) fn on_forked(&mut self, pid: u32, parent: u32, time_ns: u64) {
        let is_of_tree = |tree: &HashSet<u32>| tree.contains(&parent) || self.children.knows(parent);
        if self.is_open && self.children.follows && self.tree.as_ref().is_some_and(is_of_tree) {
            self.children.on_forked(pid, time_ns);
        }
    }

    /// Attaches to children that the kernel has not told of where they began.
    pub(in crate::recorder) fn attach_unreported(&mut self, object: &mut Object, at_end: bool) {
        for pid in self.children.take_overdue(at_end) {
            self.children.late += 1;
            log::warn!(
                "the kernel did not tell of process {pid} when it began: its first calls were not seen"
            );
            if self.is_open && proc_fs::is_running(pid) {
                self.attach_child(object, pid, false);
            }
        }
    }

    /// Stops no child any more: a process notices, or would.
    pub(in crate::recorder) fn on_stop_noticed(&mut self, object: &mut Object, pid: u32) {
        if self.tree.is_some() {
            let name = proc_fs::comm(pid).ok().filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| "a process".to_owned());
            log::warn!("{name} ({pid}) would notice that children are stopped: from now on {MACHINE_SCOPE}");
            self.leave_tree(object);
        }
    }

    /// Attaches to every process that maps the files, in place of those of the tree.
    fn leave_tree(&mut self, object: &mut Object) {
        let Some(tree) = self.tree.take() else { return };
        self.children.forget();
        let attached = self.uprobes.attach_all_for(object, UprobeScope::Machine);
        let attached = attached.and_then(|()| Ok(object.set_probe_scope(ProbeScope::Machine)?));
        if let Err(error) = attached {
            log::warn!("{error}: calls of processes that begin from now on are not seen");
            return;
        }
        for pid in tree {
            self.uprobes.remove(UprobeScope::Process(pid));
        }
    }

    /// Has the programs of children do nothing any more, and takes them off.
    pub(super) fn detach_child_tracepoints(&mut self, object: &mut Object) {
        if self.child_tracepoints.is_empty() {
            return;
        }
        match object.set_probe_scope(ProbeScope::Machine) {
            Ok(()) => self.child_tracepoints.detach_later(),
            Err(error) => {
                log::debug!("{error}: children are looked at until their tracepoints are off");
                self.child_tracepoints.detach();
            }
        }
    }

    /// Detaches the probes of a process that has ended, if it has some of its own. Its first thread
    /// may have ended alone, and its id may be another process's by now: then they stay.
    pub(in crate::recorder) fn on_exit(&mut self, pid: u32) {
        self.children.reported.remove(&pid);
        let is_last = || proc_fs::is_exiting(pid) && proc_fs::threads(pid).len() <= 1;
        if !proc_fs::is_running(pid) || is_last() {
            self.remove(pid);
        }
    }

    /// Detaches the probes of processes of the tree that have ended. Returns true if there are any.
    pub(in crate::recorder) fn remove_ended(&mut self) -> bool {
        let pids = self.tree.iter().flatten().copied();
        let ended: Vec<u32> = pids.filter(|pid| !proc_fs::is_running(*pid)).collect();
        for pid in &ended {
            self.remove(*pid);
        }
        !ended.is_empty()
    }

    fn remove(&mut self, pid: u32) {
        self.uprobes.remove(UprobeScope::Process(pid));
        if let Some(tree) = &mut self.tree {
            tree.remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_told_of_twice() {
        let mut children = TreeChildren::new(true);
        children.on_forked(1, 10);
        assert!(!children.knows(1));
        children.since_ns = Some(20);
        children.on_forked(1, 20);
        assert!(!children.knows(1));
        children.on_reported(1);
        children.on_forked(1, 21);
        children.on_forked(2, 22);
        children.on_reported(2);
        children.on_forked(3, 23);
        assert!(!children.knows(1) && !children.knows(2) && children.knows(3));
        assert!(children.take_overdue(false).is_empty());
        let earlier = Instant::now().checked_sub(2 * REPORT_LIMIT_AT_END);
        children
            .unreported
            .insert(3, earlier.expect("the machine is up for longer"));
        assert!(children.take_overdue(false).is_empty());
        assert_eq!(children.take_overdue(true), [3]);
        assert!(!children.knows(3));
    }
}
