//! Whether uprobes are still in the code of processes.
//!
//! Closing a probe takes it out of the code within milliseconds, and then waits for grace periods of the kernel, some ten
//! times as long. What has become of it is seen in memory alone: in that of the process that it is for. One for all
//! processes leaves them one after the other, and nobody knows which is the last.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use crate::bpf::{Uprobe, UprobeScope};
use crate::process::maps::{self, Mapping};

/// What a uprobe puts in place of an instruction's first byte: `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Instructions that had breakpoints when they were first looked at.
#[derive(Debug)]
pub(super) struct Breakpoints(Vec<Instruction>);

/// An instruction in a process's memory.
#[derive(Debug)]
struct Instruction {
    memory: Rc<File>,
    address: u64,
}

impl Instruction {
    /// Whether there is a breakpoint; in memory that has gone there is none.
    fn has_breakpoint(&self) -> bool {
        let mut byte = [0];
        self.memory.read_exact_at(&mut byte, self.address).is_ok() && byte[0] == BREAKPOINT
    }
}

impl Breakpoints {
    /// Finds those of uprobes that are in. Nothing if any cannot be seen: then nobody knows when it has gone.
    pub(super) fn of(uprobes: &[Uprobe]) -> Option<Self> {
        let mut found = Vec::new();
        let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
        for uprobe in uprobes {
            let UprobeScope::Process(pid) = uprobe.scope else {
                return None;
            };
            let process = processes.entry(pid).or_insert_with(|| Process::look(pid));
            // One that has ended has no code.
            let Some(process) = process else { continue };
            // What waits for a file that is not mapped yet is in no code.
            if !process.maps(uprobe) {
                continue;
            }
            found.push(process.instruction(uprobe)?);
        }
        let all_in = found.iter().all(Instruction::has_breakpoint);
        all_in.then_some(Self(found))
    }

    /// Whether all have gone.
    pub(super) fn have_gone(&mut self) -> bool {
        self.0.retain(Instruction::has_breakpoint);
        self.0.is_empty()
    }
}

/// A process's memory, and what is mapped where.
struct Process {
    memory: Rc<File>,
    mappings: Vec<Mapping>,
}

impl Process {
    fn look(pid: u32) -> Option<Self> {
        Some(Self {
            memory: Rc::new(File::open(format!("/proc/{pid}/mem")).ok()?),
            mappings: maps::executable_mappings(pid).ok()?,
        })
    }

    fn maps(&self, uprobe: &Uprobe) -> bool {
        self.mappings.iter().any(|mapping| mapping.file == uprobe.file.id)
    }

    fn instruction(&self, uprobe: &Uprobe) -> Option<Instruction> {
        let mapping = self.mappings.iter().find(|mapping| {
            let inside = uprobe.offset.checked_sub(mapping.file_offset);
            mapping.file == uprobe.file.id && inside.is_some_and(|at| at < mapping.end - mapping.start)
        })?;
        Some(Instruction {
            memory: Rc::clone(&self.memory),
            address: mapping.start + (uprobe.offset - mapping.file_offset),
        })
    }
}
