//! Whether uprobes are still in the code of processes.
//!
//! Closing a probe takes it out of all code within milliseconds, and then waits for grace periods of the kernel, some ten
//! times as long. What has become of it is seen in memory alone.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use crate::bpf::{Uprobe, UprobeScope};
use crate::target::files::MappedFile;
use crate::target::maps::{self, FileId, Mapping};

/// What a uprobe puts in place of an instruction's first byte: `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

/// Instructions that had breakpoints when they were first looked at.
#[derive(Debug)]
pub(super) struct Breakpoints {
    left: Vec<Instruction>,
    /// Mappings of this process, where probes of all processes are seen.
    own: Vec<OwnPage>,
}

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
        let mut found = Self {
            left: Vec::new(),
            own: Vec::new(),
        };
        let own_memory = Rc::new(File::open("/proc/self/mem").ok()?);
        let mut own: HashMap<(FileId, u64), u64> = HashMap::new();
        let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
        for uprobe in uprobes {
            let instruction = match uprobe.scope {
                UprobeScope::Machine => {
                    let page = uprobe.offset & !(PAGE_BYTES as u64 - 1);
                    let start = if let Some(start) = own.get(&(uprobe.file.id, page)) {
                        *start
                    } else {
                        let mapped = OwnPage::map(&uprobe.file, page).ok()?;
                        let start = mapped.0;
                        own.insert((uprobe.file.id, page), start);
                        found.own.push(mapped);
                        start
                    };
                    Instruction {
                        memory: Rc::clone(&own_memory),
                        address: start + (uprobe.offset - page),
                    }
                }
                UprobeScope::Process(pid) => {
                    let process = processes.entry(pid).or_insert_with(|| Process::look(pid));
                    // One that has ended has no code.
                    let Some(process) = process else { continue };
                    process.instruction(uprobe)?
                }
            };
            if !instruction.has_breakpoint() {
                return None;
            }
            found.left.push(instruction);
        }
        Some(found)
    }

    /// Whether all have gone.
    pub(super) fn have_gone(&mut self) -> bool {
        self.left.retain(Instruction::has_breakpoint);
        self.left.is_empty()
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

/// A page of a file that this process has mapped. The kernel puts breakpoints into every mapping that could be executed.
#[derive(Debug)]
struct OwnPage(u64);

impl OwnPage {
    fn map(file: &MappedFile, offset: u64) -> io::Result<Self> {
        let file = File::open(file.open_path())?;
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping, at an address that the kernel chooses. It is never read but through /proc/self/mem,
        // which fails where the file was cut short.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(address as u64))
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing points into it.
        if unsafe { libc::munmap(self.0 as *mut libc::c_void, PAGE_BYTES) } != 0 {
            log::debug!("munmap: {}", io::Error::last_os_error());
        }
    }
}
