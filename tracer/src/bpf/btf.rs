//! Offsets of members in the running kernel's structures, from its type information (BTF).
//!
//! The layout read here is that of the kernel's `Documentation/bpf/btf.rst`: a header, then types
//! of varying length, then names. aya parses it too, but keeps the members to itself.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;

use tracer_ebpf::{KernelOffsets, SIGCHLD, SIGCONT, StopOffsets};

/// The index of a process's group in `signal_struct.pids`, an array of pointers (`enum pid_type` in
/// `include/linux/pid_types.h`, since Linux 4.19).
const PIDTYPE_PGID: u32 = 2;

/// A shell that looks after jobs ignores it; handlers are numbered from 1.
const SIGTTOU: u32 = 22;

/// The size of a pointer.
const WORD_BYTES: u32 = 8;

/// Where the kernel shows its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why an offset could not be told.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel has no type information.
    #[error("failed to read {VMLINUX}: {0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF")]
    Unreadable(#[source] io::Error),
    /// It is not in the form that is known here.
    #[error("the kernel's type information is malformed")]
    Malformed,
    /// There is no such member.
    #[error("the kernel's {0} has no member {1}")]
    NoMember(String, String),
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;

/// The bytes of type information.
#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Read(Vec<u8>),
}

impl Bytes {
    fn of_kernel() -> io::Result<Self> {
        // Since Linux 6.16 the kernel's own pages can be mapped: a copy of them takes 10 ms.
        // SAFETY: nobody can change them while the kernel runs.
        if let Ok(bytes) = unsafe { memmap2::Mmap::map(&File::open(VMLINUX)?) } {
            return Ok(Self::Mapped(bytes));
        }
        fs::read(VMLINUX).map(Self::Read)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

/// The kernel's types.
#[derive(Debug)]
pub struct Btf {
    bytes: Bytes,
    names_start: usize,
    /// Where each type begins; types are numbered from 1.
    types: Vec<usize>,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::parse(Bytes::of_kernel().map_err(BtfError::Unreadable)?).ok_or(BtfError::Malformed)
    }

    fn parse(bytes: Bytes) -> Option<Self> {
        let word = |offset: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(
                bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?,
            ))
        };
        let header_len = word(4)? as usize;
        let types_start = header_len.checked_add(word(8)? as usize)?;
        let types_end = types_start.checked_add(word(12)? as usize)?;
        let names_start = header_len.checked_add(word(16)? as usize)?;
        let mut types = Vec::new();
        let mut at = types_start;
        while at < types_end {
            types.push(at);
            let info = word(at + 4)?;
            let members = (info & 0xffff) as usize;
            // What follows the twelve bytes that every type has, by kind.
            let more = match (info >> 24) & 0x1f {
                // integer, variable, declaration tag
                1 | 14 | 17 => 4,
                // array
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * members,
                // enumeration, function prototype
                6 | 13 => 8 * members,
                _ => 0,
            };
            at = at.checked_add(12 + more)?;
        }
        Some(Self {
            bytes,
            names_start,
            types,
        })
    }

    /// The offset, in bytes, of a member of a structure, or of a type that stands for one, also
    /// where it is in an unnamed structure inside it.
    pub fn offset(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        self.offsets_in(structure)(member)
    }

    /// Looks a structure up, among all types of the kernel, for the offsets of several members.
    fn offsets_in<'a>(&'a self, structure: &'a str) -> impl Fn(&str) -> Result<u32, BtfError> + 'a {
        let at = self.structure(structure);
        move |member| {
            at.and_then(|at| self.member_bits(at, member))
                .map(|bits| bits / 8)
                .ok_or_else(|| BtfError::NoMember(structure.to_owned(), member.to_owned()))
        }
    }

    /// The size of a structure, in bytes.
    fn size(&self, structure: &str) -> Result<u32, BtfError> {
        self.structure(structure)
            .and_then(|at| self.word(at + 8))
            .ok_or_else(|| BtfError::NoMember(structure.to_owned(), "size".to_owned()))
    }

    /// The structure of this name, or that a type of this name stands for.
    fn structure(&self, name: &str) -> Option<usize> {
        let named = self
            .types
            .iter()
            .copied()
            .filter(|at| self.name_is(self.word(*at), name));
        for at in named {
            match self.kind(at)? {
                KIND_STRUCT => return Some(at),
                KIND_TYPEDEF => {
                    let inner = self.type_at(self.word(at + 8)?)?;
                    if self.kind(inner)? == KIND_STRUCT {
                        return Some(inner);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Where a type begins, by its number.
    fn type_at(&self, number: u32) -> Option<usize> {
        self.types.get((number as usize).checked_sub(1)?).copied()
    }

    /// The offsets that the kernel side needs.
    pub fn kernel_offsets(&self) -> Result<KernelOffsets, BtfError> {
        Ok(KernelOffsets {
            task_mm: self.offset("task_struct", "mm")?,
            mm_brk: self.offset("mm_struct", "brk")?,
            vma_start: self.offset("vm_area_struct", "vm_start")?,
            vma_end: self.offset("vm_area_struct", "vm_end")?,
            vma_mm: self.offset("vm_area_struct", "vm_mm")?,
            mm_vdso: self.offset("mm_struct", "context")? + self.offset("mm_context_t", "vdso")?,
            vma_page_offset: self.offset("vm_area_struct", "vm_pgoff")?,
            vma_file: self.offset("vm_area_struct", "vm_file")?,
            file_inode: self.offset("file", "f_inode")?,
            inode_number: self.offset("inode", "i_ino")?,
            inode_size: self.offset("inode", "i_size")?,
            // Linux 6.11 and later, 6.7 and later, before: the last two are structures that begin
            // with the seconds.
            inode_modified: self.first_offset("inode", &["i_mtime_sec", "__i_mtime", "i_mtime"])?,
            ..self.pid_offsets()?
        })
    }

    /// Those of them that tell a process's number in its own namespace; the others are 0.
    pub fn pid_offsets(&self) -> Result<KernelOffsets, BtfError> {
        Ok(KernelOffsets {
            task_leader: self.offset("task_struct", "group_leader")?,
            task_pid: self.offset("task_struct", "thread_pid")?,
            pid_level: self.offset("pid", "level")?,
            pid_numbers: self.offset("pid", "numbers")?,
            ..self.return_offsets().unwrap_or_default()
        })
    }

    /// Those that tell what probes of returns have taken the place of; the others are 0.
    fn return_offsets(&self) -> Result<KernelOffsets, BtfError> {
        Ok(KernelOffsets {
            task_uprobes: self.offset("task_struct", "utask")?,
            uprobes_returns: self.offset("uprobe_task", "return_instances")?,
            return_next: self.offset("return_instance", "next")?,
            return_stack: self.offset("return_instance", "stack")?,
            return_address: self.offset("return_instance", "orig_ret_vaddr")?,
            ..KernelOffsets::default()
        })
    }

    /// Those that tell who would notice that a process is stopped.
    pub fn stop_offsets(&self) -> Result<StopOffsets, BtfError> {
        let (task, signal) = (self.offsets_in("task_struct"), self.offsets_in("signal_struct"));
        let handlers = self.offset("sighand_struct", "action")?;
        let handler_bytes = self.size("k_sigaction")?;
        let handler = |number: u32| handlers + (number - 1) * handler_bytes;
        Ok(StopOffsets {
            task_ptrace: task("ptrace")?,
            task_parent: task("real_parent")?,
            task_signal: task("signal")?,
            signal_threads: signal("nr_threads")?,
            signal_group: signal("pids")? + PIDTYPE_PGID * WORD_BYTES,
            task_handlers: task("sighand")?,
            handler_ttou: handler(SIGTTOU),
            signal_tty: signal("tty")?,
            handler_chld: handler(SIGCHLD),
            handler_cont: handler(SIGCONT),
            task_blocked: task("blocked")?,
            task_real_blocked: task("real_blocked")?,
            task_vfork: task("vfork_done")?,
            task_comm: task("comm")?,
            task_tgid: task("tgid")?,
            reserved: 0,
        })
    }

    /// The offset of the first of these members that the structure has. The error names the last.
    fn first_offset(&self, structure: &str, members: &[&str]) -> Result<u32, BtfError> {
        let mut missing = BtfError::NoMember(structure.to_owned(), String::new());
        for member in members {
            match self.offset(structure, member) {
                Err(error) => missing = error,
                found => return found,
            }
        }
        Err(missing)
    }

    fn member_bits(&self, at: usize, name: &str) -> Option<u32> {
        let info = self.word(at + 4)?;
        // With this flag the upper eight bits of an offset are the size of a bit field.
        let mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        for i in 0..(info & 0xffff) as usize {
            let member = at + 12 + 12 * i;
            let offset = self.word(member + 8)? & mask;
            if self.name_is(self.word(member), name) {
                return Some(offset);
            }
            if self.name_is(self.word(member), "") {
                let inner = self.type_at(self.word(member + 4)?)?;
                if matches!(self.kind(inner), Some(KIND_STRUCT | KIND_UNION))
                    && let Some(bits) = self.member_bits(inner, name)
                {
                    return offset.checked_add(bits);
                }
            }
        }
        None
    }

    fn kind(&self, at: usize) -> Option<u32> {
        self.word(at + 4).map(|info| (info >> 24) & 0x1f)
    }

    fn word(&self, offset: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(
            self.bytes.get(offset..offset + 4)?.try_into().ok()?,
        ))
    }

    fn name_is(&self, offset: Option<u32>, name: &str) -> bool {
        let Some(start) = offset.and_then(|offset| self.names_start.checked_add(offset as usize)) else {
            return false;
        };
        let end = start + name.len();
        self.bytes.get(start..end) == Some(name.as_bytes()) && self.bytes.get(end) == Some(&0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_types_are_refused() {
        assert!(Btf::parse(Bytes::Read(vec![])).is_none());
        assert!(Btf::parse(Bytes::Read(vec![0xff; 64])).is_none());
    }

    #[test]
    fn member_of_an_unnamed_structure_is_found() {
        // names: "" outer\0 x\0 y\0
        let names = b"\0outer\0x\0y\0";
        let mut types: Vec<u32> = Vec::new();
        // 1: struct outer { x at 0; unnamed (2) at 64 bits }
        types.extend([1, (KIND_STRUCT << 24) | 2, 16, 7, 3, 0, 0, 2, 64]);
        // 2: struct { y at 32 bits }
        types.extend([0, (KIND_STRUCT << 24) | 1, 8, 9, 3, 32]);
        // 3: int
        types.extend([0, 1 << 24, 4, 32]);
        let type_bytes: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let len = |n: usize| u32::try_from(n).expect("small");
        let header = [
            0x0001_eb9f,
            24,
            0,
            len(type_bytes.len()),
            len(type_bytes.len()),
            len(names.len()),
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(type_bytes);
        bytes.extend(names);
        let btf = Btf::parse(Bytes::Read(bytes)).expect("well-formed");
        assert_eq!(btf.offset("outer", "x").expect("x"), 0);
        assert_eq!(btf.offset("outer", "y").expect("y"), 12);
        assert!(btf.offset("outer", "z").is_err());
        assert!(btf.offset("inner", "x").is_err());
        assert_eq!(btf.first_offset("outer", &["z", "y", "x"]).expect("y"), 12);
        let error = btf.first_offset("outer", &["a", "z"]).expect_err("neither");
        assert_eq!(error.to_string(), "the kernel's outer has no member z");
    }
}
