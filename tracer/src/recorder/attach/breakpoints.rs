//! The breakpoints of uprobes in the code of processes.
//!
//! Closing a probe removes its breakpoint within milliseconds, and then waits for grace periods of the kernel, some
//! ten times as long. The removal shows in memory alone: in that of the process that the probe is for. A probe for
//! all processes leaves them one after the other, and nothing tells which is the last.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use crate::bpf::{Uprobe, UprobeScope};
use crate::process::maps::{self, Mapping};

/// The byte that a uprobe puts in place of an instruction's first one: `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Instructions that had breakpoints at first.
#[derive(Debug)]
pub(super) struct Breakpoints(Vec<ProbedInstruction>);

/// An instruction in a process's memory.
#[derive(Debug)]
struct ProbedInstruction {
    memory: Rc<File>,
    address: u64,
}

impl ProbedInstruction {
    /// Returns true if there is a breakpoint. Memory that has gone has none.
    fn has_breakpoint(&self) -> bool {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, self.address).is_ok() && byte[0] == BREAKPOINT
    }
}

impl Breakpoints {
    /// Finds the breakpoints of attached uprobes. Returns nothing if any cannot be seen, and its removal neither.
    pub(super) fn of(uprobes: &[Uprobe]) -> Option<Self> {
        let mut found = Vec::new();
        let mut processes: HashMap<u32, Option<ProcessCode>> = HashMap::new();
        for uprobe in uprobes {
            let UprobeScope::Process(pid) = uprobe.scope else {
                return None;
            };
            let process = processes.entry(pid).or_insert_with(|| ProcessCode::open(pid));
            // A process that has ended has no code.
            let Some(process) = process else { continue };
            // A probe of a file that is not mapped yet is in no code.
            if !process.maps(uprobe) {
                continue;
            }
            found.push(process.instruction(uprobe)?);
        }
        let all_in = found.iter().all(ProbedInstruction::has_breakpoint);
        all_in.then_some(Self(found))
    }

    /// Returns true if all have gone.
    pub(super) fn have_gone(&mut self) -> bool {
        self.0.retain(ProbedInstruction::has_breakpoint);
        self.0.is_empty()
    }
}

/// A process's memory and its mappings of code.
struct ProcessCode {
    memory: Rc<File>,
    mappings: Vec<Mapping>,
}

impl ProcessCode {
    fn open(pid: u32) -> Option<Self> {
        Some(Self {
            memory: Rc::new(File::open(format!("/proc/{pid}/mem")).ok()?),
            mappings: maps::executable_mappings(pid).ok()?,
        })
    }

    fn maps(&self, uprobe: &Uprobe) -> bool {
        self.mappings.iter().any(|mapping| mapping.file == uprobe.file.id)
    }

    fn instruction(&self, uprobe: &Uprobe) -> Option<ProbedInstruction> {
        let mapping = self.mappings.iter().find(|mapping| {
            let inside = uprobe.offset.checked_sub(mapping.file_offset);
            mapping.file == uprobe.file.id && inside.is_some_and(|at| at < mapping.end - mapping.start)
        })?;
        Some(ProbedInstruction {
            memory: Rc::clone(&self.memory),
            address: mapping.start + (uprobe.offset - mapping.file_offset),
        })
    }
}
